"""What is told of each fixture: line, column, path, and the beginning of the words."""

from __future__ import annotations

FORM: dict[str, tuple[str, ...]] = {
    "empty": ("1:1: the file is empty",),
    "only-a-comment": ("1:1: the file is empty",),
    "not-a-mapping": ("1:1: this is no topology",),
    "two-documents": ("7:1: a second document begins here",),
    "tab-for-indentation": (r"4:1: this is no valid YAML (found character '\t' that cannot start any token)",),
    "two-colons-on-a-line": ("4:13: this is no valid YAML (mapping values are not allowed here)",),
    "bracket-never-closed": ("7:13: this is no valid YAML (expected ',' or ']', but got '<stream end>')",),
    "control-character": ("4:5: there is a control character here",),
    "escape-beyond-unicode": ("2:8: an escape here is no character",),
    "not-utf8": ("4:47: the file is not UTF-8",),
    "key-given-twice": ("7:3: sites.north: the key is given twice, first on line 5",),
    "alias": ("5:35: sites.north.labels: the alias '*labels' is not allowed",),
    "alias-bomb": (
        "11:18: telemetry.cell.sites.north[0]: the alias '*a' is not allowed",
        "11:22: telemetry.cell.sites.north[1]: the alias '*a' is not allowed",
        "12:14: telemetry.cell.sites.edge[0]: the alias '*b' is not allowed",
        "12:18: telemetry.cell.sites.edge[1]: the alias '*b' is not allowed",
    ),
    "merge-key": ("6:5: sites.north.<<: merge keys are not allowed",),
    "tag": ("4:16: sites.core.tier: the tag '!level' is not allowed",),
    "nan": ("4:40: sites.core.capacity.cpus: '.nan' is no usable number",),
    "number-too-large": ("4:40: sites.core.capacity.cpus: '1e999' is no usable number",),
    "nesting-too-deep": ("7:40: agents[0][0][0]: the nesting is too deep",),
    "surrogate-escape": (r"4:38: sites.core.labels.town: '\ud800' is no valid Unicode text",),
    "mapping-as-key": ("7:5: sites: this key is no text",),
    "missing-field": ("4:3: sites.core.tier: the field is missing; add it (Where in the hierarchy the site stands)",),
    "missing-sections": (
        "1:1: apiVersion: the field is missing",
        "1:1: sites: the field is missing",
    ),
    "misspelt-field": (
        "5:27: sites.north.uplnik: there is no field 'uplnik' here; did you mean 'uplink'? fields are tier,",
    ),
    "misspelt-section": (
        "7:1: agentss: there is no field 'agentss' here; did you mean 'agents'? fields are apiVersion, mesh,",
    ),
    "misspelt-tier": (
        "5:17: sites.north.tier: 'reginal' is not allowed; did you mean 'regional'? edge, regional, cloud are",
    ),
    "wrong-version": ("1:13: apiVersion: 'mesh/v2' is not allowed; write mesh/v1",),
    "bad-name": ("7:3: sites.'north site': 'north site' is no name",),
    "no-sites": ("3:8: sites: there is none",),
    "empty-section": (
        "7:1: agents: there is nothing here; a mapping is allowed, such as {name: value}, or leave it out",
    ),
    "empty-site": ("4:3: sites.core: there is nothing here",),
    "bad-duration": (
        "5:55: sites.north.uplink.latency: '18 parsecs' is no duration; write a number and a unit, such as 250ms,",
    ),
    "duration-without-unit": ("5:55: sites.north.uplink.latency: 18 is no duration",),
    "bad-size": ("4:42: sites.core.capacity.memory: '4 gigs' is no size",),
    "bad-bandwidth": ("5:57: sites.north.uplink.bandwidth: '1GB' is no bandwidth",),
    "truth-for-number": ("4:40: sites.core.capacity.cpus: true is no number",),
    "text-for-number": ("4:40: sites.core.capacity.cpus: '2' is no number",),
    "number-for-text": ("4:39: sites.core.labels.floor: 2 is no text",),
    "number-for-id": ("9:25: telemetry.cell.sites.edge[1]: 10 is no text; a text is allowed; put it in quotes",),
    "text-for-list": ("10:20: agents.forecast.sites.names: 'edge' is no list; a list is allowed, such as [a, b]",),
    "list-for-mapping": ("7:9: models: a list is no mapping",),
    "port-out-of-range": (
        "4:40: sites.core.listen.client: 70000 is out of range; a number of 65535 or less is allowed",
    ),
    "half-a-replica": ("11:15: agents.forecast.replicas: 1.5 is no whole number",),
    "too-many-replicas": ("11:15: agents.forecast.replicas: 65 is out of range",),
    "one-coordinate": ("4:33: sites.core.location: this is no location",),
    "class-without-colon": ("9:12: agents.forecast.class: 'fixture_agents.Forecast' is no class reference",),
    "list-as-parameter": ("11:26: agents.forecast.parameters.levels: a list is no single value",),
    "unknown-replay-format": (
        "10:22: telemetry.cell.replay.format: 'widde' is not allowed; did you mean 'wide'? wide, long are allowed",
    ),
    "replay-without-format": ("10:5: telemetry.cell.replay.format: the field is missing",),
    "misspelt-replay-field": ("10:57: telemetry.cell.replay.feilds: there is no field 'feilds' here",),
    "no-time": ("11:12: telemetry.cell.begin: 'yesterday' is no time",),
    "several-mistakes": (
        "5:55: sites.north.uplink.latency: 18 is no duration",
        "6:17: sites.south.tier: 'reginal' is not allowed",
        "7:35: sites.edge.uplink.to: there is no site 'nroth'",
        "11:28: agents.forecast.sites.names[1]: there is no site 'esat'",
        "12:12: agents.forecast.model: there is no model 'load'",
        "13:16: agents.forecast.slo.p99: 'fast' is no duration",
        "17:16: agents.overload.consumes[0]: there is no agent 'forcast'",
    ),
}
"""Mistakes in the YAML or in the form of the fields."""

JUDGED: dict[str, tuple[str, ...]] = {
    "sites-differ-in-case": (
        "7:3: sites.Edge: the name differs from 'edge' only in letter case or in '-' against '_'",
    ),
    "sites-differ-in-dash": (
        "8:3: sites.north_a: the name differs from 'north-a' only in letter case or in '-' against '_'",
    ),
    "agents-differ-in-case": (
        "11:3: agents.Forecast: the name differs from 'forecast' only in letter case or in '-' against '_'",
    ),
    "unknown-uplink": (
        "6:35: sites.edge.uplink.to: there is no site 'nroth'; did you mean 'north'? sites are core, north, edge",
    ),
    "unknown-site-in-selector": ("10:27: agents.forecast.sites.names[1]: there is no site 'nroth'",),
    "unknown-model": ("13:12: agents.forecast.model: there is no model 'laod'; did you mean 'load'? models are load",),
    "unknown-consumed-agent": ("14:16: agents.overload.consumes[0]: there is no agent 'forcast'",),
    "unknown-telemetry-site": ("9:13: telemetry.cell.sites.esge: there is no site 'esge'",),
    "unknown-escalation-agent": (
        "11:5: agents.forecast.escalate: escalation to a stronger agent is not available yet",
        "11:20: agents.forecast.escalate.to: there is no agent 'forecast-large'",
    ),
    "uplink-cycle": ("7:33: sites.a.uplink.to: the uplinks form a cycle (a → b → a)",),
    "uplink-to-itself": ("7:40: sites.south.uplink.to: the uplinks form a cycle (south → south)",),
    "no-root": (
        "3:1: sites: every site has an uplink",
        "4:36: sites.core.uplink.to: the uplinks form a cycle (core → hub → core)",
    ),
    "two-roots": ("7:3: sites.south: the site has no uplink, nor has 'core'",),
    "edge-below-edge": (
        "7:38: sites.cabinet.uplink.to: a site of tier edge cannot be below 'edge', which is edge; its parent may",
    ),
    "cloud-below-regional": (
        "5:36: sites.core.uplink.to: a site of tier cloud cannot be below 'north', which is regional",
    ),
    "location-off-the-globe": ("4:34: sites.core.location[0]: 145.46 is out of range",),
    "disk-of-zero": ("4:40: sites.core.capacity.disk: disk is zero",),
    "cpus-exceeded": (
        "6:3: sites.edge.capacity.cpus: replicas need 1.1 cpus and the site has 1 (forecast 3 × 0.3, anomaly 0.2)",
    ),
    "memory-exceeded": (
        "6:3: sites.edge.capacity.memory: replicas need 3GiB memory and the site has 2GiB (forecast 3GiB)",
    ),
    "gpus-exceeded": ("6:55: sites.edge.capacity.gpus: replicas need 2 gpus and the site has 1 (forecast 2)",),
    "gpus-without-provider": (
        "11:23: agents.forecast.resources.gpus: gpus are asked for at sites with provider cpu (edge)",
    ),
    "listening-without-tls": (
        "4:38: sites.core.listen.host: '10.0.0.5' is reached from other hosts and there is no tls",
    ),
    "server-without-tls": (
        "4:29: sites.core.nats: 'nats://hub.example.org:4222' is on another host and not encrypted",
    ),
    "malformed-server-url": ("4:29: sites.core.nats: 'hub.example.org:4222' is no URL of a nats-server",),
    "malformed-ray-address": ("4:28: sites.core.ray: 'ray://127.0.0.1:6379' is no address of a Ray cluster",),
    "missing-tls-file": ("8:35: sites.core.listen.tls.key: there is no file 'no-such.pem'",),
    "unknown-leaf-port": ("4:29: sites.core.nats: child sites cannot know the port for links of this server",),
    "address-of-two-sites": ("5:61: sites.north.listen.client: 127.0.0.1:4222 is taken by site 'core' (client)",),
    "address-for-two-purposes": ("4:52: sites.core.listen.leaf: 127.0.0.1:4222 is taken by site 'core' (client)",),
    "latency-beyond-pings": ("6:51: sites.edge.uplink.latency: a link of 600ms one way would count as dead",),
    "bandwidth-of-zero": ("6:53: sites.edge.uplink.bandwidth: the bandwidth is zero",),
    "selector-without-match": ("10:12: agents.forecast.sites: no site matches every part of the selector",),
    "missing-model-file": ("8:16: models.load.file: there is no file 'no-such.onnx'",),
    "missing-module": ("9:12: agents.forecast.class: there is no module 'no_such_module'",),
    "missing-class": ("9:12: agents.forecast.class: the module 'fixture_agents' has no class 'Forcast'; did you mean",),
    "consumption-cycle": (
        "11:16: agents.forecast.consumes[0]: agents consume each other's decisions in a cycle (forecast → anomaly",
    ),
    "consuming-oneself": (
        "11:16: agents.forecast.consumes[0]: agents consume each other's decisions in a cycle (forecast →",
    ),
    "escalation-cycle": (
        "11:5: agents.forecast.escalate: escalation to a stronger agent is not available yet",
        "11:20: agents.forecast.escalate.to: escalation goes round in a cycle (forecast → anomaly → forecast)",
        "15:5: agents.anomaly.escalate: escalation to a stronger agent is not available yet",
    ),
    "memory-of-zero": ("11:25: agents.forecast.resources.memory: memory is zero",),
    "slo-of-zero": ("11:16: agents.forecast.slo.p99: no decision takes no time",),
    "batch-not-yet": ("11:5: agents.forecast.batch: dynamic batching is not available yet",),
    "escalate-not-yet": ("11:5: agents.forecast.escalate: escalation to a stronger agent is not available yet",),
    "telemetry-without-source": ("8:3: telemetry.cell: it has no source",),
    "id-of-two-sites": ("12:19: telemetry.cell.sites.east[1]: the id '2' belongs to 'edge' already",),
    "unusable-id": ("9:25: telemetry.cell.sites.edge[1]: an empty name cannot be a subject token",),
    "missing-telemetry-folder": ("11:13: telemetry.cell.folder: there is no folder 'no-such-folder'",),
    "missing-profile": ("10:26: telemetry.cell.generator.profile: there is no file 'no-such.json'",),
    "begin-without-offset": (
        "11:12: telemetry.cell.begin: the time has no offset from UTC; add one, such as 2013-12-06T00:00:00+01:00",
    ),
    "start-without-offset": ("10:60: telemetry.cell.replay.start: the time has no offset from UTC",),
    "step-of-zero": ("10:93: telemetry.cell.replay.step: the step is zero",),
}
"""Mistakes that the checks find."""
