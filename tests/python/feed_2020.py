"""A client of the public mask feed of March 2020, written from its documented endpoints and fields alone: what is near me, what is in
my district, and all of it page by page, as the apps of then did. It knows nothing of the server.

Usage: feed_2020.py http://HOST:PORT LAT LNG ADDRESS. Prints what an app would have shown.
"""

import datetime
import json
import sys
import urllib.error
import urllib.parse
import urllib.request

ROOT = "/corona19-masks/v1"
KINDS = {"01": "pharmacy", "02": "post office", "03": "mart"}
# What was known when it opened, and `break`, which came a few days later.
COLOURS = {"plenty": "green", "some": "yellow", "few": "red", "empty": "grey", "break": "paused"}
HOUR_FORMAT = "%Y/%m/%d %H:%M:%S"
PER_PAGE = 500


def get(base, path, **parameters):
    url = base + ROOT + path + "?" + urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["content-type"].startswith("application/json"), answer.headers
        return json.loads(answer.read().decode("utf-8"))


def time(text):
    return datetime.datetime.strptime(text, HOUR_FORMAT)


def place(store):
    assert isinstance(store["code"], str) and isinstance(store["name"], str) and isinstance(store["addr"], str)
    assert store["type"] in KINDS, store
    assert isinstance(store["lat"], float) and isinstance(store["lng"], float), store


def level(sale):
    assert isinstance(sale["code"], str)
    time(sale["stock_at"]), time(sale["created_at"])
    return COLOURS[sale["remain_stat"]]


def shown(store):
    place(store)
    colour = level(store)
    at = time(store["created_at"])
    print(f"{KINDS[store['type']]:<12} {store['name']:<28} {colour:<8} {at}")
    return colour


def refused(base, path, **parameters):
    try:
        get(base, path, **parameters)
    except urllib.error.HTTPError as error:
        assert error.code == 400, error
        return
    raise AssertionError(f"{path} took {parameters}")


def main(base, lat, lng, address):
    near = get(base, "/storesByGeo/json", lat=lat, lng=lng, m=5000)
    assert near["count"] == len(near["stores"]) > 0, near
    print(f"near {lat}, {lng}:")
    colours = [shown(store) for store in near["stores"]]

    there = get(base, "/storesByAddr/json", address=address)
    assert there["address"] == address and there["count"] == len(there["stores"]) > 0, there
    print(f"in {address}:")
    for store in there["stores"]:
        shown(store)

    stores, page = {}, 1
    while True:
        answer = get(base, "/stores/json", page=page, perPage=PER_PAGE)
        for store in answer["storeInfos"]:
            place(store)
            assert store["code"] not in stores, "twice"
            stores[store["code"]] = store
        if page >= answer["totalPages"]:
            break
        page += 1
    sales, page = {}, 1
    while True:
        answer = get(base, "/sales/json", page=page, perPage=PER_PAGE)
        for sale in answer["sales"]:
            sales[sale["code"]] = level(sale)
        if page >= answer["totalPages"]:
            break
        page += 1
    assert set(sales) <= set(stores), "a level of no store"
    for store in near["stores"]:
        assert sales[store["code"]] == COLOURS[store["remain_stat"]]
    print(f"{len(stores)} stores, {len(sales)} levels")

    refused(base, "/storesByGeo/json", lat=12.0, lng=lng, m=500)
    refused(base, "/storesByGeo/json", lat=lat, lng=lng, m=500_000)
    refused(base, "/stores/json", page=1, perPage=7)
    print("all as in 2020:", ", ".join(sorted(set(colours))))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
