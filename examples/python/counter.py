"""A counter's morning: all that a POS has to do to sell under rationd, in two files, on code generated from proto/.

Usage: counter.py HOST:PORT SITE NUMBER JOURNAL [CA.pem SITE.pem SITE.key]
NUMBER is a synthetic one of the demo; a POS reads a real one from the card, and never from a command line. README.md says more.
"""

import datetime
import json
import os
import sys
import threading
import uuid

import grpc
from rationd.v1 import journal_service_pb2 as journal
from rationd.v1 import journal_service_pb2_grpc, purchase_service_pb2_grpc
from rationd.v1 import purchase_service_pb2 as purchase

from line import PROGRAMME, TERMINAL, Calls, Failed, Session, connect, say, told

# The service is there and what it would have to ask is not: as good as away.
NOBODY_TO_ASK = {"STORE_UNAVAILABLE", "REPLICAS_MISSING", "CLOCKS_APART"}


class Journal:
    """An append-only file, a fact a line, on the disk before anything is sent or handed over because of it.

    IT HOLDS BUYERS' NUMBERS, in the clear because this is a demo. A real POS must encrypt it: each line with AES-256-GCM or
    XChaCha20-Poly1305 under a nonce of its own, with its place in the file as associated data so that none can be moved; the key in the
    machine's key store (TPM, DPAPI, keychain) and not beside the file; and the file destroyed once all of it is settled and too old.
    """

    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self.lock, self.sales, self.offline = threading.Lock(), {}, {}
        with open(path, "rb") as file:
            whole = file.read()
        # Power that failed in the middle of a line left a piece of it, on which nobody had acted: cut it off.
        end = whole.rfind(b"\n") + 1
        os.ftruncate(self.file, end)
        for line in whole[:end].splitlines():
            self.take(json.loads(line))
        # A new file's name is kept by its directory.
        directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def write(self, **fact):
        line = (json.dumps(fact) + "\n").encode()
        with self.lock:
            # On a full disk: stop, and never pretend.
            if os.write(self.file, line) != len(line):
                raise OSError("the journal is not written: sell nothing")
            os.fsync(self.file)
            self.take(fact)

    def take(self, fact):
        # What is known of a sale is the sum of its lines.
        self.sales.setdefault(fact["id"], {}).update(fact) if "id" in fact else self.offline.update(fact["offline"])

    def which(self, fits):
        return [sale for sale in self.sales.values() if fits(sale)]


class Counter:
    def __init__(self, channel, site, path):
        self.purchases = purchase_service_pb2_grpc.PurchaseServiceStub(channel)
        self.uploads = journal_service_pb2_grpc.JournalServiceStub(channel)
        self.site_code, self.site = site, (("rationd-site", site), ("rationd-terminal", TERMINAL))
        self.journal, self.clock_is_off = Journal(path), datetime.timedelta()
        self.session = Session(channel, self.site, self.journal)
        self.calls = Calls(self.session, self.site)

    def now(self):
        """By the service's clock, as a receipt told it: a late sale counts at its own time, and this machine's may be wrong."""
        return datetime.datetime.now(datetime.timezone.utc) + self.clock_is_off

    def sell(self, number, quantity):
        """Goods are handed over where this says SELL, and nowhere else. Gives the sale's request id."""
        sale, ledger = str(uuid.uuid4()), self.session.ledger_id
        if not self.session.reached:
            return self.sell_offline(sale, number, quantity)
        if not self.session.token:
            say("DO NOT SELL", "yet: this terminal is in line")
            return sale
        # First written down, with the ledger under which the id means something; then sent. Whatever happens, we can ask.
        self.journal.write(id=sale, number=number, quantity=quantity, ledger=ledger)
        line = purchase.Line(request_id=sale, buyer=purchase.Buyer(resident_number=number), quantity=quantity)
        request = purchase.PurchaseRequest(programme=PROGRAMME, lines=[line], ledger_id=ledger)
        try:
            [result] = self.calls.insist(self.purchases.Purchase, request, seat=True).results
        except Failed as failed:
            if failed.unknown or str(failed) in NOBODY_TO_ASK:
                say("away", f"{failed}; outcome unknown" if failed.unknown else failed)
                self.session.is_away()
                return self.sell_offline(sale, number, quantity)
            self.journal.write(id=sale, outcome=str(failed))
            say("DO NOT SELL", failed)
            return sale
        outcome = result.WhichOneof("outcome")
        self.journal.write(id=sale, outcome=outcome)
        if outcome == "approved":
            receipt, again = result.approved.receipt, ", recorded by the first attempt" if result.replayed else ""
            if not again:
                self.clock_is_off += receipt.sold_at.ToDatetime(datetime.timezone.utc) - self.now()
            say("SELL", f"{receipt.quantity} to {result.echo.masked_number}, receipt {receipt.mac}{again}")
        elif outcome == "refused":
            # A decision, and no error: read it to the buyer.
            say("DO NOT SELL", *(reason.why for reason in result.refused.reasons), "Next:", result.standing.next_chance.date)
        else:
            say("SELL" if outcome == "not_required" else "DO NOT SELL", outcome)
        return sale

    def sell_offline(self, sale, number, quantity):
        """Nobody can be asked. An id that was sent stays the sale's: if it was recorded after all, it is still one sale."""
        if self.journal.offline.get(PROGRAMME) != "SELL_AND_RECORD":
            say("DO NOT SELL", "the service is away, and so is this programme")  # If the id was sent, settle() asks later.
            return sale
        # All that can be checked is what this counter itself has sold to this person. The clerk decides; this one sells.
        mine = self.journal.which(lambda one: one["number"] == number and ("sold_at" in one or one.get("outcome") == "approved"))
        if mine:
            say("warning", f"this counter has sold {sum(one['quantity'] for one in mine)} to this person before")
        self.journal.write(id=sale, number=number, quantity=quantity, sold_at=self.now().isoformat())
        say("SELL", f"{quantity}, offline: written down, uploaded later")
        return sale

    def follow(self, method, kind, sale):
        """A call about a purchase. Needs no seat: nobody queues to find out what became of a sale."""
        known = self.journal.sales[sale]
        buyer = purchase.Buyer(resident_number=known["number"])
        request = kind(programme=PROGRAMME, buyer=buyer, request_id=sale, ledger_id=known["ledger"])
        try:
            outcome = self.calls.insist(method, request).result.WhichOneof("outcome")
        except Failed as failed:
            return f"not yet: {failed}"  # It stays open in the journal, and is asked again.
        if outcome != "approved":  # Then it stays open until it is taken back, whatever happens before.
            self.journal.write(id=sale, outcome=outcome)
        return outcome

    def void(self, sale):
        say("void", self.follow(self.purchases.VoidPurchase, purchase.VoidPurchaseRequest, sale))

    def settle(self):
        """Asks about purchases without an answer: the program, or the power, ended before it came."""
        for sale in [one["id"] for one in self.journal.which(lambda one: not {"outcome", "sold_at"} & one.keys())]:
            # An id that nobody recorded is closed by the question: a late copy of the request does nothing any more.
            outcome = self.follow(self.purchases.GetPurchase, purchase.GetPurchaseRequest, sale)
            say("settled", sale, outcome)
            if outcome == "approved":
                self.void(sale)  # It was recorded, and no clerk was told to hand anything over.

    def upload(self, sales):
        """Uploads sales made offline, and shows what became of each. May be repeated, as often as one likes."""
        requests = []
        for nth, one in enumerate(sales):
            buyer = purchase.Buyer(resident_number=one["number"])
            sold = journal.OfflineSale(request_id=one["id"], programme=PROGRAMME, site_code=self.site_code, buyer=buyer)
            sold.quantity = one["quantity"]
            sold.sold_at.FromDatetime(datetime.datetime.fromisoformat(one["sold_at"]))
            requests.append(journal.UploadSalesRequest(call_id=nth, sale=sold))
        try:
            for answer in self.uploads.UploadSales(iter(requests), metadata=self.site, timeout=60, wait_for_ready=True):
                kind = answer.WhichOneof("verdict") or "failure"  # None: a verdict that this program is too old for.
                verdict = getattr(answer, kind)
                # It happened, so it is recorded; what was too much is marked, with the purchases beside which it is.
                beside = [f"{one.quantity} in {one.district}" for one in verdict.earlier] if kind == "over_quota" else []
                say("uploaded", answer.request_id, kind.upper(), *beside, getattr(verdict, "why", getattr(verdict, "reason", "")))
                # One that is invalid is to be mended, one that failed sent again later: they stay open.
                if kind not in ("invalid", "failure"):
                    self.journal.write(id=answer.request_id, verdict=kind)
        except grpc.RpcError as error:
            say("uploaded", f"not all: {told(error)[0] or error.code().name}; again later")


def step(what):
    say("--", what + ", and press Enter")
    sys.stdin.readline()


def main(address, site, number, path, *files):
    counter = Counter(connect(address, files), site, path)
    counter.session.start()
    counter.session.wait()
    counter.settle()
    step("watch the morning")
    first = counter.sell(number, 2)
    counter.sell(number, 1)  # Once more than is allowed.
    counter.void(first)
    step("kill the service")
    counter.sell(number, 2)
    counter.sell(number, 1)  # A second time, and nobody can be asked.
    step("start the service again")
    counter.upload(counter.journal.which(lambda one: "sold_at" in one and "verdict" not in one))
    counter.upload(counter.journal.which(lambda one: "sold_at" in one))  # Nothing is doubled.
    counter.session.wait()
    counter.settle()
    counter.sell(number, 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
