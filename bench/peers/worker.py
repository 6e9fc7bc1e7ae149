"""The worker that people write today: redis-py with a consumer group, dicts for tables, maxminddb, one process.

It makes the same four look-ups as the other rows, and as they do it commits with dossier's script, stores a record with a `pipeline`
part and writes one log line for each alert. What dossier does beside (limits, retries, dead letters, metrics) it does not.

Usage: worker.py SOCKET FOLDER SCRIPT..., where FOLDER holds blocklist.tsv, assets.csv, and countries.mmdb or countries.csv, and SCRIPT...
are the parts of dossier's script that commits new alerts.
"""

import csv
import datetime
import hashlib
import ipaddress
import json
import math
import pathlib
import sys
import time
import uuid

import maxminddb
import redis

BATCH = 100
LEVELS = ["low", "medium", "high", "critical"]
SHARES = {"low": 0.0, "medium": 0.3, "high": 0.7, "critical": 1.0}
SEVERITIES = {1: ("high", 0.75), 2: ("medium", 0.5), 3: ("low", 0.25)}
STEPS = [("ip-reputation", "enrich"), ("asset", "enrich"), ("geo", "enrich"), ("verdict", "verdict")]

# Dossier's namespace of ids that are made from an alert's bytes.
NAMESPACE = uuid.UUID("2d7d3f1c-0d9a-5c1e-9a55-6f0e54c17b2f")

def block_list(file):
    rows = {}
    with open(file) as lines:
        for line in lines:
            if not line.startswith("#"):
                address, lists = line.split("\t")
                rows[address] = float(lists)
    return rows


def asset_list(file):
    rows = {}
    with open(file, newline="") as lines:
        for row in csv.DictReader(lines):
            rows[row["ip"]] = rows[row["hostname"]] = row
    return rows


def country_finder(folder):
    """A function from an address to its country."""
    database = folder / "countries.mmdb"
    if database.exists():
        reader = maxminddb.open_database(str(database))
        return lambda address: (reader.get(address) or {}).get("country_code")
    networks = {}
    with open(folder / "countries.csv", newline="") as lines:
        for row in csv.DictReader(lines):
            networks[int(ipaddress.ip_network(row["network"]).network_address) >> 17] = row["country_code"]
    return lambda address: networks.get(int(ipaddress.ip_address(address)) >> 17)


class Enricher:
    def __init__(self, folder):
        self.listed = block_list(folder / "blocklist.tsv")
        self.assets = asset_list(folder / "assets.csv")
        self.country = country_finder(folder)
        digest = hashlib.sha256(b"").hexdigest()
        self.config = digest
        self.steps = [
            {"step": name, "stage": stage, "plugin": name, "version": "0.1.0", "sha256": digest, "settings_sha256": digest,
             "outcome": "ok", "attempts": 1, "cached": False, "tables": {} if name == "verdict" else {name: digest},
             "fuel": 0, "memory": 0, "duration_us": 0}
            for name, stage in STEPS
        ]

    def rest(self, body, received):
        """The record without its schema and id, and the label."""
        alert = json.loads(body)
        found = [(role, alert[key]) for key, role in (("src_ip", "source"), ("dest_ip", "destination")) if key in alert]
        reputed, located, assets = [], [], []
        for role, text in found:
            address = {"address": text, "roles": [role], "scope": "private"}
            feeds, place = [], {}
            if ipaddress.ip_address(text).is_global:
                address["scope"] = "public"
                lists = self.listed.get(text)
                if lists is not None:
                    score = min(100, math.floor(40 + 8 * lists + 0.5))
                    feeds = [{"table": "blocklist", "category": "blocklist", "score": score, "value": lists}]
                country = self.country(text)
                place = {"country_code": country} if country else {}
            score = max((feed["score"] for feed in feeds), default=0)
            categories = [feed["category"] for feed in feeds]
            reputed.append(address | {"score": score, "trusted": False, "categories": categories, "feeds": feeds})
            located.append(address | place)
            if text in self.assets:
                assets.append({"matched": [{"kind": "ip", "role": role, "value": text}], "asset": self.assets[text]})
        score = max((one["score"] for one in reputed), default=0)
        criticality = max((one["asset"]["criticality"] for one in assets), key=LEVELS.index, default=None)
        severity, share = SEVERITIES.get(alert.get("alert", {}).get("severity"), ("low", 0.25))
        total = math.floor(min(100, 30 * share + score / 2 + 15 * SHARES.get(criticality, 0.0)) + 0.5)
        label = "malicious" if total >= 70 else "suspicious" if total >= 40 else "benign" if total < 20 else "unknown"
        reasons = [f"{one['address']} is on {one['feeds'][0]['value']:.0f} block lists" for one in reputed if one["feeds"]]
        reasons += [f"{one['asset']['hostname']} is a {one['asset']['role']}" for one in assets]
        reasons += [f"the sensor rates the alert {severity}"]
        countries = sorted({one["country_code"] for one in located if "country_code" in one})
        parts = json.dumps({
            "observables": [{"type": "ip", "role": role, "value": text} for role, text in found],
            "enrichment": {
                "ip-reputation": {
                    "score": score,
                    "trusted": False,
                    "categories": sorted({category for one in reputed for category in one["categories"]}),
                    "addresses": reputed,
                },
                "asset": {"assets": assets, "criticality": criticality},
                "geo": {"addresses": located, "countries": countries},
            },
            "verdict": {"label": label, "score": total, "reasons": reasons},
            "pipeline": {
                "host": "0.1.0", "config_sha256": self.config, "received": received, "finished": now(), "duration_us": 0,
                "deliveries": 1, "attempts": 1, "history": [], "steps": self.steps,
            },
        })
        return ',"alert":' + body.decode() + "," + parts[1:], label


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


def main():
    socket, folder, script = sys.argv[1], pathlib.Path(sys.argv[2]), map(pathlib.Path, sys.argv[3:])
    client = redis.Redis(unix_socket_path=socket)
    store = client.register_script("".join(part.read_text() for part in script))
    keys = ["alerts", "alerts:enriched"]
    # The group, the consumer, the prefix of the index, and in milliseconds how long its entries and records live: for ever.
    common = ["dossier", "worker", "alerts:id:", 0, 0]
    enricher = Enricher(folder)
    print(json.dumps({"message": "host ready"}), flush=True)
    while True:
        for _, entries in client.xreadgroup("dossier", "worker", {"alerts": ">"}, count=BATCH, block=1000):
            commit, lines = list(common), []
            for entry, fields in entries:
                body, began = fields[b"alert"], time.perf_counter()
                rest, label = enricher.rest(body, now())
                identity = str(uuid.uuid5(NAMESPACE, body.decode()))
                digest = hashlib.sha256(body).hexdigest()
                commit += [entry, identity, digest, '{"schema":1,"id":' + json.dumps(identity) + rest]
                lines.append((entry, identity, label, began))
            if store(keys, commit) != [0]:
                raise RuntimeError("an alert was not new")
            for entry, identity, label, began in lines:
                duration = round((time.perf_counter() - began) * 1e6)
                steps = [{"step": name, "outcome": "ok", "duration_us": 0, "fuel": 0} for name, _ in STEPS]
                line = {
                    "timestamp": now(), "level": "INFO", "message": "alert stored", "id": identity,
                    "entry": entry.decode(), "outcome": "stored", "verdict": label, "duration_us": duration,
                    "deliveries": 1, "steps": steps,
                }
                sys.stdout.write(json.dumps(line) + "\n")


main()
