"""The worker that people write today: redis-py with a consumer group, dicts for tables, maxminddb, one process.

It makes the same four look-ups as the other rows, and a record of the same shape without a pipeline part. What dossier does beside
(limits, duplicates, dead letters, metrics) it does not.

Usage: worker.py SOCKET FOLDER, where FOLDER holds blocklist.tsv, assets.csv, and countries.mmdb or countries.csv.
"""

import csv
import ipaddress
import json
import pathlib
import sys
import uuid

import maxminddb
import redis

BATCH = 100
LEVELS = ["low", "medium", "high", "critical"]
SHARES = {"low": 0.0, "medium": 0.3, "high": 0.7, "critical": 1.0}
SEVERITIES = {1: ("high", 0.75), 2: ("medium", 0.5), 3: ("low", 0.25)}


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

    def record(self, body):
        alert = json.loads(body)
        found = [(role, alert[key]) for key, role in (("src_ip", "source"), ("dest_ip", "destination")) if key in alert]
        addresses, located, assets = [], [], []
        for role, text in found:
            public = ipaddress.ip_address(text).is_global
            lists = self.listed.get(text) if public else None
            score = 0 if lists is None else min(100, round(40 + 8 * lists))
            addresses.append({"address": text, "roles": [role], "score": score, "lists": lists})
            located.append({"address": text, "roles": [role], "country_code": self.country(text) if public else None})
            if text in self.assets:
                assets.append({"matched": [{"kind": "ip", "role": role, "value": text}], "asset": self.assets[text]})
        score = max((one["score"] for one in addresses), default=0)
        criticality = max((one["asset"]["criticality"] for one in assets), key=LEVELS.index, default=None)
        severity, share = SEVERITIES.get(alert.get("alert", {}).get("severity"), (None, 0.0))
        total = round(min(100, 30 * share + score / 2 + 15 * SHARES.get(criticality, 0.0)))
        label = "malicious" if total >= 70 else "suspicious" if total >= 40 else "benign" if total < 20 else "unknown"
        reasons = [f"{one['address']} is on {one['lists']:.0f} block lists" for one in addresses if one["lists"]]
        reasons += [f"{one['asset']['hostname']} is a {one['asset']['role']}" for one in assets]
        reasons += [f"the sensor rates the alert {severity}"] if severity else []
        return json.dumps({
            "schema": 1,
            "id": alert.get("id") or str(uuid.uuid5(uuid.NAMESPACE_URL, body.decode())),
            "alert": alert,
            "observables": [{"type": "ip", "role": role, "value": text} for role, text in found],
            "enrichment": {
                "ip-reputation": {"score": score, "addresses": addresses},
                "asset": {"assets": assets, "criticality": criticality},
                "geo": {"addresses": located},
            },
            "verdict": {"label": label, "score": total, "reasons": reasons},
        })


def main():
    socket, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    client = redis.Redis(unix_socket_path=socket)
    enricher = Enricher(folder)
    print(json.dumps({"message": "host ready"}), flush=True)
    while True:
        for _, entries in client.xreadgroup("dossier", "worker", {"alerts": ">"}, count=BATCH, block=1000):
            commit = client.pipeline(transaction=True)
            for _, fields in entries:
                commit.xadd("alerts:enriched", {"record": enricher.record(fields[b"alert"])})
            ids = [entry for entry, _ in entries]
            commit.xack("alerts", "dossier", *ids)
            commit.xdel("alerts", *ids)
            commit.execute()


main()
