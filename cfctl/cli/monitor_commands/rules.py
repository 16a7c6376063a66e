"""`cfctl monitor rules`: the targets as alerting rules for Prometheus."""

from __future__ import annotations

from cfctl.cli.output import Output, OutputOption
from cfctl.cli.target_options import TargetOption, TargetsOption, load_targets


def rules(targets: TargetsOption = None, target: TargetOption = None, output: OutputOption = None) -> None:
    """Write the targets as alerting rules for Prometheus.

    One alert per target, with its `for` and `keep_firing_for`, on the names that --prometheus exports.
    promtool check rules accepts the file; keep_firing_for needs Prometheus 2.42.
    """
    from cfctl.monitor.rules import rules as rule_file

    Output.resolve(output=output).write_text(rule_file(load_targets(targets, target or ())))
