"""Faults: what went wrong and was dealt with. Metrics, units, and what a number means."""

from __future__ import annotations

from deploy.grafana.panel import Board, Panel, Row
from deploy.grafana.queries import INTERVAL, p99, rate

FAULTS = Board(
    uid="framefeed-faults",
    title="Faults",
    text="What went wrong and was dealt with: retries, hedges, quarantine, servers that left, and bugs.",
    rows=[
        Row(
            title="Members",
            panels=[
                Panel(
                    title="Servers that each rank uses",
                    text="Servers that take requests, as the trainer sees them.",
                    unit="short",
                    queries=[("sum by (instance, rank) (framefeed_client_server_up)", "{{instance}} rank {{rank}}")],
                ),
                Panel(
                    title="Servers by what they are to trainers",
                    text="offline, probing, trial, up, draining or shunned: a server that failed is tried with "
                    "one clip before it is used again.",
                    unit="short",
                    kind="stack",
                    queries=[("sum by (state) (framefeed_client_server_state)", "{{state}}")],
                ),
                Panel(
                    title="Servers by their own state",
                    text="What servers say of themselves.",
                    unit="short",
                    kind="stack",
                    queries=[
                        ("sum by (framefeed_server_state) (framefeed_server_state)", "{{framefeed_server_state}}")
                    ],
                ),
                Panel(
                    title="Builds",
                    text="Servers by version, decoder and data set. More than one decoder or data set: some "
                    "are shunned.",
                    unit="short",
                    queries=[
                        (
                            "count by (version, fingerprint, dataset) (framefeed_build_info)",
                            "servers {{version}} {{dataset}}",
                        ),
                        (
                            "count by (version, run, dataset) (framefeed_client_build_info)",
                            "ranks {{version}} of {{run}}",
                        ),
                    ],
                ),
            ],
        ),
        Row(
            title="Requests",
            panels=[
                Panel(
                    title="Answers by outcome",
                    text="Finished requests a second, as the trainers count them. All but ok were asked for elsewhere.",
                    unit="ops",
                    queries=[(rate("framefeed_client_requests_total", "outcome"), "{{outcome}}")],
                ),
                Panel(
                    title="Retries",
                    text="Clips asked for again a second, by why.",
                    unit="ops",
                    queries=[(rate("framefeed_client_retries_total", "reason"), "{{reason}}")],
                ),
                Panel(
                    title="Hedges",
                    text="Second requests for a clip that took long, and which of the two gave it.",
                    unit="ops",
                    queries=[
                        (f"sum(rate(framefeed_client_hedged_total{INTERVAL}))", "asked"),
                        (rate("framefeed_client_hedges_total", "winner"), "won by {{winner}}"),
                    ],
                ),
                Panel(
                    title="How long requests take",
                    text="99 % were faster; the deadline at which a second server is asked; requests that passed it.",
                    unit="s",
                    queries=[
                        (p99("framefeed_client_request_duration_seconds", "rank"), "p99 of rank {{rank}}"),
                        ("framefeed_client_attempt_deadline_seconds", "deadline of rank {{rank}}"),
                    ],
                ),
            ],
        ),
        Row(
            title="In vain",
            panels=[
                Panel(
                    title="Requests that became no data",
                    text="By why, a second.",
                    unit="ops",
                    queries=[
                        (rate("framefeed_client_dropped_total", "reason"), "{{reason}}"),
                        (f"sum(rate(framefeed_client_overdue_total{INTERVAL}))", "past their deadline"),
                    ],
                ),
                Panel(
                    title="Replies that nobody needed",
                    text="Late, duplicate, unknown or malformed, as trainers count them, and those that found "
                    "no reader, as servers do.",
                    unit="ops",
                    queries=[
                        (rate("framefeed_client_dropped_replies_total", "reason"), "{{reason}}"),
                        (rate("framefeed_server_replies_dropped_total", "reason"), "no reader: {{reason}}"),
                    ],
                ),
                Panel(
                    title="Decoded in vain",
                    text="Clips that were decoded and that nobody wanted any more.",
                    unit="ops",
                    queries=[(rate("framefeed_server_wasted_decodes_total", "reason"), "{{reason}}")],
                ),
                Panel(
                    title="Conservation",
                    text="Requests that are neither answered nor in flight, at servers and at ranks. Other "
                    "than 0 is a bug: report it.",
                    unit="short",
                    queries=[
                        ("instance:framefeed_server_lost_requests:sum", "{{instance}}"),
                        ("rank:framefeed_client_lost_requests:sum", "rank {{rank}}"),
                    ],
                ),
            ],
        ),
        Row(
            title="Samples and servers that were given up",
            panels=[
                Panel(
                    title="Quarantined samples",
                    text="Samples that no server could give, by why; the run ends past --poison-budget.",
                    unit="short",
                    queries=[
                        ("sum by (reason) (framefeed_trainer_quarantined_samples_total)", "{{reason}}"),
                        ("sum(framefeed_trainer_stand_ins_total)", "clips that stood in"),
                    ],
                ),
                Panel(
                    title="Shunned servers",
                    text="Servers that do not fit the run: other data, decoder or version, or no room for its clips.",
                    unit="short",
                    queries=[("sum by (reason) (framefeed_client_shunned_servers_total)", "{{reason}}")],
                ),
                Panel(
                    title="Refused by servers",
                    text="Connections and requests refused a second, by why; token, key and handshake are of "
                    "strangers.",
                    unit="ops",
                    queries=[(rate("framefeed_server_refused_total", "reason"), "{{reason}}")],
                ),
                Panel(
                    title="Standstills and skipped steps",
                    text="Times that no clip came for --watchdog-s and the run went on, and steps that were left out "
                    "because their loss or gradients were no numbers.",
                    unit="short",
                    queries=[
                        ("sum by (rank) (framefeed_client_stalls_total)", "standstills of rank {{rank}}"),
                        ("sum by (rank) (framefeed_trainer_skipped_steps_total)", "steps of rank {{rank}}"),
                    ],
                ),
            ],
        ),
        Row(
            title="Servers' own",
            panels=[
                Panel(
                    title="Replies by outcome",
                    text="What servers answered: a clip, who they are, or the error's code.",
                    unit="ops",
                    queries=[
                        (rate("framefeed_server_requests_total", "outcome"), "{{outcome}}"),
                        (f"sum(rate(framefeed_server_requests_received_total{INTERVAL}))", "received"),
                        (f"sum(rate(framefeed_client_requested_total{INTERVAL}))", "asked by trainers"),
                    ],
                ),
                Panel(
                    title="Processes that ended",
                    text="Worker processes that crashed or were killed and replaced, killed ones that a hung "
                    "read keeps, and gateways that were started again.",
                    unit="short",
                    queries=[
                        ("framefeed_server_worker_restarts_total", "ended, {{instance}}"),
                        ("framefeed_server_worker_zombies", "kept, {{instance}}"),
                        ("framefeed_server_gateway_restarts_total", "gateway, {{instance}}"),
                    ],
                ),
                Panel(
                    title="Reads that hang",
                    text="Decoding threads in a read that does not return: the mount.",
                    unit="short",
                    queries=[("framefeed_server_stuck_reads", "{{instance}}")],
                ),
                Panel(
                    title="Faults of storage",
                    text="Reads that went wrong, by kind, and reads that were made again.",
                    unit="ops",
                    queries=[
                        (rate("framefeed_server_storage_faults_total", "kind"), "{{kind}}"),
                        (f"sum(rate(framefeed_server_storage_retries_total{INTERVAL}))", "read again"),
                    ],
                ),
            ],
        ),
    ],
)
