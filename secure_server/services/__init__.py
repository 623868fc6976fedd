"""The gRPC face of users and tokens: translate, call, translate back."""
