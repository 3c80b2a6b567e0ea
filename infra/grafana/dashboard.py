"""Makes the dashboard's JSON from ``panels``: ``python -m infra.grafana.dashboard`` writes it, ``--check`` compares.

The shape is that of Grafana 9 and newer (``schemaVersion`` 39), which later versions read and lift by themselves.
"""

import json
import sys
from pathlib import Path
from typing import Any

from infra.grafana.panels import ROWS, Panel

PATH = Path(__file__).parent / "dashboards" / "mcp-sessions.json"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
HEIGHTS = {"stat": 4, "timeseries": 8}
COLUMNS = 24


def dashboard() -> dict[str, Any]:
    """Return the dashboard in Grafana's format."""
    return {
        "uid": "mcp-sessions",
        "title": "mcp-sessions",
        "description": "Calls, their sessions, and the workers that hold them.",
        "tags": ["mcp-sessions"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_instances()]},
        "annotations": {"list": []},
        "links": [],
        "panels": _laid_out(),
    }


def _instances() -> dict[str, Any]:
    query = "label_values(mcp_sessions_link_up, instance)"
    return {
        "name": "instance",
        "label": "Worker",
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "instance"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _laid_out() -> list[dict[str, Any]]:
    """Place the rows below each other, and their panels from left to right, on a grid of 24 columns."""
    found: list[dict[str, Any]] = []
    y = 0
    for title, panels in ROWS.items():
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        found.append({"id": len(found) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place})
        found[-1]["panels"] = []
        x, y = 0, y + 1
        height = HEIGHTS[panels[0].kind]
        for panel in panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + height
            place = {"x": x, "y": y, "w": panel.width, "h": height}
            found.append({"id": len(found) + 1, "gridPos": place, **_panel(panel)})
            x += panel.width
        y += height
    return found


def _panel(panel: Panel) -> dict[str, Any]:
    drawn = _stat(panel) if panel.kind == "stat" else _timeseries(panel)
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATASOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "instant": panel.kind == "stat",
                "range": panel.kind != "stat",
            }
            for number, query in enumerate(panel.queries)
        ],
        **drawn,
    }


def _thresholds(panel: Panel) -> dict[str, Any]:
    colours = ("green", "red") if panel.bad_when == "above" else ("red", "green")
    steps: list[dict[str, Any]] = [{"color": colours[0] if panel.red is not None else "blue", "value": None}]
    if panel.red is not None:
        steps.append({"color": colours[1], "value": panel.red})
    return {"mode": "absolute", "steps": steps}


def _stat(panel: Panel) -> dict[str, Any]:
    return {
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "color": {"mode": "thresholds"},
                "thresholds": _thresholds(panel),
            },
            "overrides": [],
        },
        "options": {
            "colorMode": "value",
            "graphMode": "none",
            "textMode": "value",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    }


def _timeseries(panel: Panel) -> dict[str, Any]:
    drawn = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 20 if panel.stacked else 5,
        "showPoints": "never",
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
    }
    return {
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "color": {"mode": "palette-classic"},
                "custom": drawn,
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def text() -> str:
    """Return the file's content."""
    return json.dumps(dashboard(), indent=2) + "\n"


def main() -> int:
    """Write the dashboard, or with ``--check`` say whether it is up to date."""
    if "--check" not in sys.argv[1:]:
        PATH.write_text(text(), encoding="utf-8")
    elif not PATH.is_file() or PATH.read_text(encoding="utf-8") != text():
        print(f"{PATH.name} differs from panels.py; run python -m infra.grafana.dashboard")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
