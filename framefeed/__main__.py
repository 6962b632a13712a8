"""`python -m framefeed VERB …`, and so `torchrun … -m framefeed train …`: the command without its script."""

from framefeed.cli.command import main

raise SystemExit(main())
