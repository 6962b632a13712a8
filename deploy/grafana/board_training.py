"""Training at a glance: whether a GPU is starved, which rank, by what. Metrics, units, and what a number means."""

from __future__ import annotations

from deploy.grafana.panel import Board, Panel, Row
from deploy.grafana.queries import INTERVAL, p99, rate

TRAINING = Board(
    uid="framefeed-training",
    title="Training at a glance",
    text="Is a GPU starved, which rank, by what; what the trainers ask for, get, and could get.",
    rows=[
        Row(
            title="Is a GPU starved, which rank, and by what?",
            panels=[
                Panel(
                    title="Worst rank waits for data",
                    text="Share of its time that the rank that waits most waits for data. Above 5 % its GPU is "
                    "starved; all other ranks wait for it in turn.",
                    unit="percentunit",
                    kind="number",
                    queries=[("topk(1, rank:framefeed_trainer_starvation:ratio)", "rank {{rank}}")],
                ),
                Panel(
                    title="What it waits for",
                    text="The cause with the largest share of time, of the rank that waits most for it. "
                    "docs/operations.md says what to do about each.",
                    unit="percentunit",
                    kind="number",
                    queries=[("topk(1, cause:framefeed_trainer_starvation:ratio)", "{{cause}}")],
                ),
                Panel(
                    title="Accelerator use that data allows",
                    text="1 minus the worst rank's wait: what the step could reach of its own speed. 90 % is "
                    "the bar of MLPerf Storage.",
                    unit="percentunit",
                    kind="number",
                    queries=[("1 - max(rank:framefeed_trainer_starvation:ratio)", "accelerator use")],
                ),
                Panel(
                    title="Videos a second",
                    text="Clips that all ranks got.",
                    unit="ops",
                    kind="number",
                    queries=[("sum(job:framefeed_trainer_clips:rate1m)", "clips/s")],
                ),
                Panel(
                    title="This wait so far",
                    text="For how long the rank that waits longest is blocked now; 0 while it has data.",
                    unit="s",
                    kind="number",
                    queries=[("max(framefeed_trainer_waiting_seconds)", "seconds")],
                ),
                Panel(
                    title="Steps",
                    text="Optimizer steps of the run.",
                    unit="short",
                    kind="number",
                    queries=[("max by (job, instance) (framefeed_trainer_step)", "{{instance}}")],
                ),
            ],
        ),
        Row(
            title="What is learned from",
            panels=[
                Panel(
                    title="Clips with something odd",
                    text="Share of the clips looked at, 16 every --sheet-every steps, that have a cut, flicker, or a "
                    "picture that comes again. Videos have cuts themselves: what counts is a change.",
                    unit="percentunit",
                    queries=[
                        (
                            f"sum by (finding) (rate(framefeed_trainer_clip_findings_total{INTERVAL})) / ignoring "
                            f"(finding) group_left () (sum(rate(framefeed_trainer_checked_clips_total{INTERVAL})) > 0)",
                            "{{finding}}",
                        )
                    ],
                ),
                Panel(
                    title="How far features are apart",
                    text="Standard deviation of clips' features of length 1 over clips, times the root of their "
                    "number: near 1 they point everywhere, at 0 the model gives all clips the same.",
                    unit="short",
                    queries=[("max by (job) (framefeed_trainer_feature_std)", "std")],
                ),
                Panel(
                    title="Directions that features have",
                    text="Effective rank of clips' features: in how many directions clips differ.",
                    unit="short",
                    queries=[("max by (job) (framefeed_trainer_feature_rank)", "rank")],
                ),
                Panel(
                    title="Features collapsed",
                    text="1 while the trainer holds its features to have collapsed; its log says by which numbers.",
                    unit="short",
                    kind="number",
                    queries=[("max(framefeed_trainer_features_collapsed)", "collapsed")],
                ),
            ],
        ),
        Row(
            title="Demand and supply",
            panels=[
                Panel(
                    title="Demand, supply, achievable",
                    text="Clips a second that trainers would take without a wait, got, that servers decoded "
                    "(retries and hedges included), and could decode with every thread at work. "
                    "Achievable below demand: add servers.",
                    unit="ops",
                    queries=[
                        ("sum(job:framefeed_trainer_demand_clips:rate1m)", "demand"),
                        ("sum(job:framefeed_trainer_clips:rate1m)", "got"),
                        ("sum(job:framefeed_server_clips:rate1m)", "decoded"),
                        ("sum(job:framefeed_server_achievable_clips:rate1m)", "achievable"),
                    ],
                ),
                Panel(
                    title="Wait for data by cause",
                    text="Share of a rank's time by what it waited for, on average over ranks. first_batch is "
                    "start-up.",
                    unit="percentunit",
                    kind="stack",
                    queries=[
                        (f"avg by (cause) (rate(framefeed_trainer_data_wait_seconds_total{INTERVAL}))", "{{cause}}")
                    ],
                ),
                Panel(
                    title="Idle GPU by cause",
                    text="Share of a GPU's time without work between two steps, by CUDA events, on average over ranks: "
                    "by what was waited for, or host, the training thread itself. Runs on a CPU have none.",
                    unit="percentunit",
                    kind="stack",
                    queries=[
                        (f"avg by (cause) (rate(framefeed_trainer_gpu_idle_seconds_total{INTERVAL}))", "{{cause}}")
                    ],
                ),
                Panel(
                    title="Wait for data by rank",
                    text="Share of its time that each rank waits. One above the others is a straggler: look at "
                    "its node.",
                    unit="percentunit",
                    queries=[("rank:framefeed_trainer_starvation:ratio", "{{instance}} rank {{rank}}")],
                ),
            ],
        ),
        Row(
            title="The run",
            panels=[
                Panel(
                    title="Step time",
                    text="From one optimizer step to the next, waits included: mean, and what 99 % are faster than.",
                    unit="s",
                    queries=[
                        (
                            f"{rate('framefeed_trainer_step_duration_seconds_sum', 'rank')} / "
                            f"({rate('framefeed_trainer_step_duration_seconds_count', 'rank')} > 0)",
                            "mean of rank {{rank}}",
                        ),
                        (p99("framefeed_trainer_step_duration_seconds", "rank"), "p99 of rank {{rank}}"),
                    ],
                ),
                Panel(
                    title="Steps and batches a second",
                    text="Optimizer steps that were made and batches that the loader delivered.",
                    unit="ops",
                    queries=[
                        (rate("framefeed_trainer_steps_total", "rank"), "steps of rank {{rank}}"),
                        (rate("framefeed_trainer_batches_total", "rank"), "batches of rank {{rank}}"),
                    ],
                ),
                Panel(
                    title="Loss and gradient norm",
                    text="Of the last step; the norm before clipping.",
                    unit="short",
                    queries=[
                        ("framefeed_trainer_loss", "loss of rank {{rank}}"),
                        ("framefeed_trainer_grad_norm", "gradient norm of rank {{rank}}"),
                    ],
                ),
                Panel(
                    title="Scores of held-out samples",
                    text="Of the last evaluation: val of the weights, val_average of their moving average. Losses and "
                    "ranks are as they are, all else is a share of 1.",
                    unit="short",
                    queries=[("framefeed_trainer_score", "{{score}}")],
                ),
                Panel(
                    title="Clips scored a second",
                    text="Held-out clips that an evaluation passes through the model; a rank makes no step meanwhile.",
                    unit="ops",
                    queries=[(rate("framefeed_trainer_evaluated_clips_total", "rank"), "rank {{rank}}")],
                ),
                Panel(
                    title="Learning rate",
                    text="Of the last step.",
                    unit="short",
                    queries=[("framefeed_trainer_learning_rate", "rank {{rank}}")],
                ),
            ],
        ),
        Row(
            title="The trainer's own bounds",
            panels=[
                Panel(
                    title="Clips asked for",
                    text="Requests that await their answer, and how many the servers that are up may be sent at once.",
                    unit="short",
                    queries=[
                        ("framefeed_client_inflight_requests", "in flight, rank {{rank}}"),
                        ("framefeed_client_window_requests", "limit, rank {{rank}}"),
                    ],
                ),
                Panel(
                    title="Memory of clips asked for",
                    text="Bytes asked for and not received, and --inflight-mib's bound. At the bound the "
                    "trainer holds itself back.",
                    unit="bytes",
                    queries=[
                        ("framefeed_client_inflight_bytes", "in flight, rank {{rank}}"),
                        ("framefeed_client_inflight_limit_bytes", "limit, rank {{rank}}"),
                    ],
                ),
                Panel(
                    title="Clips held for batches to come",
                    text="Received for batches that are not delivered yet, and the bound of the prefetch. Near "
                    "the bound the trainer is the slower side.",
                    unit="short",
                    queries=[
                        ("framefeed_client_held_clips", "held, rank {{rank}}"),
                        ("framefeed_client_held_limit_clips", "limit, rank {{rank}}"),
                    ],
                ),
                Panel(
                    title="CPU of receiving",
                    text="Share of a core that each rank's feed thread uses: what the trainer's machine pays "
                    "for its clips.",
                    unit="percentunit",
                    queries=[(rate("framefeed_client_receive_cpu_seconds_total", "rank"), "rank {{rank}}")],
                ),
            ],
        ),
    ],
)
