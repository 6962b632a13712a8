"""`python -m framefeed.cli VERB …`, and so `torchrun … -m framefeed.cli train …`: the command without its script."""

from framefeed.cli.command import main

raise SystemExit(main())
