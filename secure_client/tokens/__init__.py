"""Where access tokens come from: a file, a person's session, a workload's certificate."""
