"""Decode fleet: what servers do with their time, and what a clip costs. Metrics, units, and what a number means."""

from __future__ import annotations

from deploy.grafana.panel import Board, Panel, Row
from deploy.grafana.queries import INTERVAL, buckets, rate

FLEET = Board(
    uid="framefeed-fleet",
    title="Decode fleet",
    text="What each decode server does with its time, what a clip costs, and what holds it up.",
    rows=[
        Row(
            title="Clips",
            panels=[
                Panel(
                    title="Clips a second by server and socket",
                    text="Clips decoded, whether or not anyone still wanted them.",
                    unit="ops",
                    queries=[
                        (rate("framefeed_server_clips_total", "instance, socket"), "{{instance}} socket {{socket}}")
                    ],
                ),
                Panel(
                    title="Clips a second by codec",
                    text="What the videos are coded in; h264 by default of framefeed chunk.",
                    unit="ops",
                    kind="stack",
                    queries=[(rate("framefeed_server_clips_total", "codec"), "{{codec}}")],
                ),
                Panel(
                    title="Cost of a clip",
                    text="Seconds of a decoding thread and of a worker's CPU for a clip. They part where "
                    "threads wait for storage.",
                    unit="s",
                    queries=[
                        (
                            f"{rate('framefeed_server_thread_busy_seconds_total', 'instance')} / "
                            f"({rate('framefeed_server_clips_total', 'instance')} > 0)",
                            "thread, {{instance}}",
                        ),
                        (
                            f"{rate('framefeed_server_workers_cpu_seconds_total', 'instance')} / "
                            f"({rate('framefeed_server_clips_total', 'instance')} > 0)",
                            "CPU, {{instance}}",
                        ),
                    ],
                ),
            ],
        ),
        Row(
            title="Stages of a clip",
            panels=[
                Panel(
                    title=f"Time in {stage}",
                    text=text,
                    unit="s",
                    kind="heat",
                    queries=[(buckets("framefeed_server_stage_duration_seconds", f'stage="{stage}"'), "{{le}}")],
                )
                for stage, text in (
                    ("queue", "How long clips waited for a thread. Long: more is asked than the servers can do."),
                    (
                        "read",
                        "How long storage took to give a clip its bytes. Long: faster storage, or framefeed chunk.",
                    ),
                    ("decode", "How long decoding took. Long: shorter GOPs, fewer pixels, faster CPUs."),
                    ("scale", "How long cropping and scaling took."),
                )
            ],
        ),
        Row(
            title="Threads and queues",
            panels=[
                Panel(
                    title="Threads at work",
                    text="Share of their time that decoding threads worked. Near 100 %: the servers are the limit.",
                    unit="percentunit",
                    queries=[("instance:framefeed_server_thread_busy:ratio", "{{instance}}")],
                ),
                Panel(
                    title="Worker processes",
                    text="Processes that can take requests, that have one, and that there should be; restarts "
                    "are on Faults.",
                    unit="short",
                    queries=[
                        ("framefeed_server_workers", "there, {{instance}}"),
                        ("framefeed_server_workers_busy", "busy, {{instance}}"),
                        ("framefeed_server_workers_wanted", "wanted, {{instance}}"),
                    ],
                ),
                Panel(
                    title="Requests that wait",
                    text="Waiting for a worker, received and not yet answered, and the queue's limit: at it "
                    "servers say busy.",
                    unit="short",
                    queries=[
                        ("framefeed_server_queue_depth_requests", "waiting, {{instance}}"),
                        ("framefeed_server_requests_in_flight", "in flight, {{instance}}"),
                        ("framefeed_server_queue_limit_requests", "limit, {{instance}}"),
                    ],
                ),
                Panel(
                    title="What holds a server up",
                    text="Share of time: nothing to do (trainers ask too little), queue full (too few "
                    "servers), short of reply memory (--buffer-pool-mib), trainers that do not read, the "
                    "front's one thread at work.",
                    unit="percentunit",
                    queries=[
                        (
                            rate("framefeed_server_queue_empty_seconds_total", "instance"),
                            "nothing to do, {{instance}}",
                        ),
                        (rate("framefeed_server_queue_full_seconds_total", "instance"), "queue full, {{instance}}"),
                        (
                            rate("framefeed_server_buffer_short_seconds_total", "instance"),
                            "reply memory, {{instance}}",
                        ),
                        (rate("framefeed_server_client_blocked_seconds_total", "instance"), "unread, {{instance}}"),
                        (rate("framefeed_server_front_busy_seconds_total", "instance"), "front, {{instance}}"),
                        (rate("framefeed_server_gateways_cpu_seconds_total", "instance"), "gateways, {{instance}}"),
                    ],
                ),
            ],
        ),
        Row(
            title="Storage",
            panels=[
                Panel(
                    title="Storage p99",
                    text="What 99 % of reads are faster than. Above a second the file server or the link is "
                    "overloaded.",
                    unit="s",
                    queries=[("instance:framefeed_server_storage_duration_seconds:p99", "{{instance}}")],
                ),
                Panel(
                    title="Operations of storage",
                    text="Files opened and ranges read a second, and packet indices found in memory or not.",
                    unit="ops",
                    queries=[
                        (rate("framefeed_server_storage_duration_seconds_count", "operation"), "{{operation}}"),
                        (rate("framefeed_server_index_lookups_total", "found"), "index in {{found}}"),
                    ],
                ),
                Panel(
                    title="Read from storage",
                    text="Bytes of video a second that servers read; framefeed_client_read is what of it "
                    "became clips in time.",
                    unit="Bps",
                    queries=[
                        (rate("framefeed_server_read_bytes_total", "instance"), "{{instance}}"),
                        (f"sum(rate(framefeed_client_read_bytes_total{INTERVAL}))", "of used clips"),
                    ],
                ),
            ],
        ),
        Row(
            title="Network and memory",
            panels=[
                Panel(
                    title="Sent and received",
                    text="Bytes of replies that servers sent and of pixels that trainers used. 10 GbE carries "
                    "1.2 GB/s.",
                    unit="Bps",
                    queries=[
                        (rate("framefeed_server_sent_bytes_total", "instance"), "sent by {{instance}}"),
                        (f"sum(rate(framefeed_client_received_bytes_total{INTERVAL}))", "received by trainers"),
                    ],
                ),
                Panel(
                    title="Reply memory",
                    text="Memory of clips on their way out, and how much there is (--buffer-pool-mib).",
                    unit="bytes",
                    queries=[
                        ("framefeed_server_buffer_pool_used_bytes", "used, {{instance}}"),
                        ("framefeed_server_buffer_pool_bytes", "limit, {{instance}}"),
                    ],
                ),
                Panel(
                    title="Memory of the workers and gateways",
                    text="Resident memory that no process shares, of all workers and all gateways of a server.",
                    unit="bytes",
                    queries=[
                        ("framefeed_server_workers_memory_bytes", "workers, {{instance}}"),
                        ("framefeed_server_gateways_memory_bytes", "gateways, {{instance}}"),
                    ],
                ),
                Panel(
                    title="Clients",
                    text="Connections of trainers at each address, and how many there may be.",
                    unit="short",
                    queries=[
                        ("framefeed_server_clients", "{{instance}} {{address}}"),
                        ("framefeed_server_clients_limit", "limit, {{instance}} {{address}}"),
                    ],
                ),
            ],
        ),
        Row(
            title="Who is served",
            panels=[
                Panel(
                    title="Requests by run",
                    text="Requests for clips that were admitted, by the run's name: each run has an even share "
                    "of the decoding time.",
                    unit="ops",
                    kind="stack",
                    queries=[(rate("framefeed_server_run_requests_total", "run"), "{{run}}")],
                ),
                Panel(
                    title="Decoded together",
                    text="Clips a second that shared their packets with others, as several crops of one span do.",
                    unit="ops",
                    queries=[(rate("framefeed_server_clips_together_total", "instance"), "{{instance}}")],
                ),
                Panel(
                    title="Where clips are asked for",
                    text="A part's home server has it in its page cache; passed_on is to keep loads even.",
                    unit="ops",
                    kind="stack",
                    queries=[(rate("framefeed_client_picks_total", "choice"), "{{choice}}")],
                ),
            ],
        ),
        Row(
            title="Size of a fleet on Ray",
            panels=[
                Panel(
                    title="Servers of the fleet",
                    text="How many the policy wants, and what those there are do. Pending: no box has room for one. "
                    "Drained: a place that fleet drain left empty, until fleet scale.",
                    unit="short",
                    queries=[
                        ("framefeed_fleet_wanted_servers", "wanted"),
                        ("sum by (state) (framefeed_fleet_servers)", "{{state}}"),
                    ],
                ),
                Panel(
                    title="Decisions of the autoscaler",
                    text="New decisions on how many servers are wanted, by cause; its log and /events say each with "
                    "its numbers. Many of settling or bounds: raise --most, or look at what starves the ranks.",
                    unit="short",
                    kind="stack",
                    queries=[(f"sum by (cause) (increase(framefeed_fleet_decisions_total{INTERVAL}))", "{{cause}}")],
                ),
            ],
        ),
    ],
)
