"""The guard on grpcio's two stacks: threads and asyncio."""
