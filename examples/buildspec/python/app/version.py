# The build writes the commit here.
COMMIT_ID = "unknown"
