"""`cfctl monitor rules`: the targets as alerting rules for Prometheus."""

from __future__ import annotations

from cfctl.cli.output import Output, OutputOption
from cfctl.cli.target_options import TargetOption, TargetsOption, load_targets


def rules(targets: TargetsOption = None, target: TargetOption = None, output: OutputOption = None) -> None:
    """Write the targets as alerting rules for Prometheus.

    One alert per target, with its `for` and `keep_firing_for`, on the names that --prometheus exports.
    promtool check rules accepts the file; keep_firing_for needs Prometheus 2.42. Targets that are judged
    under load only, such as throughput, have a rule where --target names them.
    """
    from cfctl.monitor.rules import rules as rule_file
    from cfctl.monitor.targets import without_load

    names = target or ()
    Output.resolve(output=output).write_text(rule_file(without_load(load_targets(targets, names), names)))
