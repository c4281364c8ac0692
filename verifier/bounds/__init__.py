"""Bound methods: functions of (graph, region, rows). They never see an op's type name."""
