// A counter's morning: all that a POS has to do to sell under rationd, in two files, on code generated from proto/.
//
// Usage: node counter.js HOST:PORT SITE NUMBER JOURNAL [CA.pem SITE.pem SITE.key]
// NUMBER is a synthetic one of the demo; a POS reads a real one from the card, and never from a command line. README.md says more.

import { randomUUID } from "node:crypto";
import { closeSync, existsSync, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { createInterface } from "node:readline";

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type Client, createClient, type Transport } from "@connectrpc/connect";

import { JournalService, UploadSalesRequestSchema } from "./gen/rationd/v1/journal_service_pb.js";
import { PurchaseRequestSchema, type PurchaseResult, PurchaseService } from "./gen/rationd/v1/purchase_service_pb.js";
import { OfflineMode } from "./gen/rationd/v1/session_service_pb.js";
import { Calls, connect, Failed, PROGRAMME, say, Session, TERMINAL, told, word } from "./line.js";

// The service is there and what it would have to ask is not: as good as away.
const NOBODY_TO_ASK = new Set(["STORE_UNAVAILABLE", "REPLICAS_MISSING", "CLOCKS_APART"]);

/** What is known of a sale is the sum of its lines in the journal. */
type Sale = { id: string; number: string; quantity: number; ledger?: string; outcome?: string; sold_at?: string; verdict?: string };
type Fact = (Partial<Sale> & { id: string }) | { offline: Record<string, OfflineMode> };

/**
 * An append-only file, a fact a line, on the disk before anything is sent or handed over because of it.
 *
 * IT HOLDS BUYERS' NUMBERS, in the clear because this is a demo. A real POS must encrypt it: each line with AES-256-GCM or
 * XChaCha20-Poly1305 under a nonce of its own, with its place in the file as associated data so that none can be moved; the key in the
 * machine's key store (TPM, DPAPI, keychain) and not beside the file; and the file destroyed once all of it is settled and too old.
 */
class Journal {
  readonly #file: number;
  readonly #sales = new Map<string, Sale>();
  offline: Record<string, OfflineMode> = {};

  constructor(path: string) {
    const whole = existsSync(path) ? readFileSync(path) : Buffer.alloc(0);
    this.#file = openSync(path, "a", 0o600);
    // Power that failed in the middle of a line left a piece of it, on which nobody had acted: cut it off.
    const end = whole.lastIndexOf("\n") + 1;
    ftruncateSync(this.#file, end);
    whole.subarray(0, end).toString().split("\n").filter(Boolean).forEach((line) => this.#take(JSON.parse(line)));
    // A new file's name is kept by its directory.
    const directory = openSync(dirname(resolve(path)), "r");
    fsyncSync(directory);
    closeSync(directory);
  }

  write(fact: Fact) {
    const line = Buffer.from(JSON.stringify(fact) + "\n");
    // On a full disk: stop, and never pretend.
    if (writeSync(this.#file, line) !== line.length) throw new Error("the journal is not written: sell nothing");
    fsyncSync(this.#file);
    this.#take(fact);
  }

  #take(fact: Fact) {
    if ("offline" in fact) this.offline = fact.offline;
    else this.#sales.set(fact.id, { ...this.#sales.get(fact.id), ...fact } as Sale);
  }

  which = (fits: (sale: Sale) => unknown) => [...this.#sales.values()].filter(fits);
}

class Counter {
  readonly session: Session;
  readonly journal: Journal;
  readonly #purchases: Client<typeof PurchaseService>;
  readonly #uploads: Client<typeof JournalService>;
  readonly #headers: Record<string, string>;
  readonly #calls: Calls;
  #clockIsOff = 0;

  constructor(transport: Transport, readonly site: string, path: string) {
    this.#headers = { "rationd-site": site, "rationd-terminal": TERMINAL };
    this.#purchases = createClient(PurchaseService, transport);
    this.#uploads = createClient(JournalService, transport);
    this.journal = new Journal(path);
    this.session = new Session(transport, this.#headers, this.journal);
    this.#calls = new Calls(this.session, this.#headers);
  }

  /** By the service's clock, as a receipt told it: a late sale counts at its own time, and this machine's may be wrong. */
  #now = () => new Date(Date.now() + this.#clockIsOff);

  /** Goods are handed over where this says SELL, and nowhere else. Gives the sale's request id. */
  async sell(number: string, quantity: number): Promise<string> {
    const [id, ledger] = [randomUUID(), this.session.ledger];
    if (!this.session.reached) return this.#sellOffline(id, number, quantity);
    if (!this.session.token) {
      say("DO NOT SELL", "yet: this terminal is in line");
      return id;
    }
    // First written down, with the ledger under which the id means something; then sent. Whatever happens, we can ask.
    this.journal.write({ id, number, quantity, ledger });
    const lines = [{ requestId: id, buyer: buyer(number), quantity }];
    const request = create(PurchaseRequestSchema, { programme: PROGRAMME, lines, ledgerId: ledger });
    let result;
    try {
      result = (await this.#calls.insist((options) => this.#purchases.purchase(request, options), true)).results[0];
    } catch (failed) {
      if (!(failed instanceof Failed)) throw failed;
      if (failed.unknown || NOBODY_TO_ASK.has(failed.why)) {
        say("away", failed.unknown ? `${failed.why}; outcome unknown` : failed.why);
        this.session.isAway();
        return this.#sellOffline(id, number, quantity);
      }
      this.journal.write({ id, outcome: failed.why });
      say("DO NOT SELL", failed.why);
      return id;
    }
    const outcome = result?.outcome;
    this.journal.write({ id, outcome: word(outcome?.case) });
    if (outcome?.case === "approved") {
      const receipt = outcome.value.receipt!;
      if (!result?.replayed) this.#clockIsOff = timestampDate(receipt.soldAt!).getTime() - Date.now();
      const again = result?.replayed ? ", recorded by the first attempt" : "";
      say("SELL", `${receipt.quantity} to ${result?.echo?.maskedNumber}, receipt ${receipt.mac}${again}`);
    } else if (outcome?.case === "refused") {
      // A decision, and no error: read it to the buyer.
      const next = result?.standing?.nextChance?.date ?? "not within a year";
      say("DO NOT SELL", ...outcome.value.reasons.map((reason) => reason.why), `Next: ${next}`);
    } else say(outcome?.case === "notRequired" ? "SELL" : "DO NOT SELL", word(outcome?.case));
    return id;
  }

  /** Nobody can be asked. An id that was sent stays the sale's: if it was recorded after all, it is still one sale. */
  #sellOffline(id: string, number: string, quantity: number): string {
    if (this.journal.offline[PROGRAMME] !== OfflineMode.SELL_AND_RECORD) {
      say("DO NOT SELL", "the service is away, and so is this programme"); // If the id was sent, settle() asks later.
      return id;
    }
    // All that can be checked is what this counter itself has sold to this person. The clerk decides; this one sells.
    const mine = this.journal.which((sale) => sale.number === number && (sale.sold_at || sale.outcome === "approved"));
    const units = mine.reduce((sum, sale) => sum + sale.quantity, 0);
    if (units) say("warning", `this counter has sold ${units} to this person before`);
    this.journal.write({ id, number, quantity, sold_at: this.#now().toISOString() });
    say("SELL", `${quantity}, offline: written down, uploaded later`);
    return id;
  }

  /** A call about a purchase. Needs no seat: nobody queues to find out what became of a sale. */
  async #follow(method: "voidPurchase" | "getPurchase", id: string): Promise<string> {
    const [known] = this.journal.which((sale) => sale.id === id);
    const request = { programme: PROGRAMME, requestId: id, buyer: buyer(known!.number), ledgerId: known!.ledger ?? "" };
    try {
      const call = this.#calls.insist<{ result?: PurchaseResult }>((options) => this.#purchases[method](request, options));
      const outcome = word((await call).result?.outcome.case);
      if (outcome !== "approved") this.journal.write({ id, outcome }); // Then it stays open until it is taken back.
      return outcome;
    } catch (failed) {
      return `not yet: ${failed}`; // It stays as it is in the journal, and is asked again.
    }
  }

  async void(id: string) {
    say("void", await this.#follow("voidPurchase", id));
  }

  /** Asks about purchases without an answer: the program, or the power, ended before it came. */
  async settle() {
    for (const { id } of this.journal.which((sale) => !sale.outcome && !sale.sold_at)) {
      // An id that nobody recorded is closed by the question: a late copy of the request does nothing any more.
      const outcome = await this.#follow("getPurchase", id);
      say("settled", id, outcome);
      if (outcome === "approved") await this.void(id); // It was recorded, and no clerk was told to hand anything over.
    }
  }

  /** Uploads sales made offline, and shows what became of each. May be repeated, as often as one likes. */
  async upload(sales: Sale[]) {
    const { site } = this;
    async function* requests(): AsyncGenerator<MessageInitShape<typeof UploadSalesRequestSchema>> {
      for (const [nth, { id, number, quantity, sold_at }] of sales.entries()) {
        const soldAt = timestampFromDate(new Date(sold_at!));
        const sale = { requestId: id, programme: PROGRAMME, siteCode: site, buyer: buyer(number), quantity, soldAt };
        yield { callId: BigInt(nth), sale };
      }
    }
    try {
      for await (const answer of this.#uploads.uploadSales(requests(), { headers: this.#headers, timeoutMs: 60_000 })) {
        const { case: verdict, value } = answer.verdict;
        // It happened, so it is recorded; what was too much is marked, with the purchases beside which it is.
        const beside = verdict === "overQuota" ? value.earlier.map((one) => `${one.quantity} in ${one.district}`) : [];
        const why = verdict === "quarantined" ? value.why : verdict === "failure" ? value.reason : "";
        say("uploaded", answer.requestId, word(verdict).toUpperCase(), ...beside, why);
        // One that is invalid is to be mended, one that failed sent again later: they stay open.
        if (verdict && verdict !== "invalid" && verdict !== "failure") this.journal.write({ id: answer.requestId, verdict: word(verdict) });
      }
    } catch (thrown) {
      say("uploaded", `not all: ${told(thrown).reason || told(thrown).code}; again later`);
    }
  }
}

const buyer = (number: string) => ({ id: { case: "residentNumber" as const, value: number } });

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function step(what: string) {
  say("--", `${what}, and press Enter`);
  await lines.next();
}

const [address = "", site = "", number = "", path = "", ...files] = process.argv.slice(2);
const counter = new Counter(connect(address, files), site, path);
void counter.session.run();
await counter.session.wait();
await counter.settle();
await step("watch the morning");
const first = await counter.sell(number, 2);
await counter.sell(number, 1); // Once more than is allowed.
await counter.void(first);
await step("kill the service");
await counter.sell(number, 2);
await counter.sell(number, 1); // A second time, and nobody can be asked.
await step("start the service again");
await counter.upload(counter.journal.which((sale) => sale.sold_at && !sale.verdict));
await counter.upload(counter.journal.which((sale) => sale.sold_at)); // Nothing is doubled.
await counter.session.wait();
await counter.settle();
await counter.sell(number, 1);
process.exit(0);
