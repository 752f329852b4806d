from greeting import greeting
from version import COMMIT_ID

print(greeting("api"), COMMIT_ID)
