"""`python -m merveil` is the `merveil` command."""

from merveil.cli import main

raise SystemExit(main())
