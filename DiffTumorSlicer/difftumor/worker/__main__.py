"""Start the worker: `python -m difftumor.worker`."""

from difftumor.worker.main import main

if __name__ == "__main__":
    main()
