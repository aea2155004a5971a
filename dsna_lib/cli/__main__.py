"""``python -m dsna_lib.cli``, for launchers that start a module: ``accelerate launch -m dsna_lib.cli train ...``."""

import sys

from dsna_lib.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
