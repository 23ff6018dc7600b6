// tidewire.hpp: what the classes add to the functions, which the tests in C look at.
//
//   test_cpp SCRATCH-DIRECTORY
//
// Prints a line per check, then `N passed, M failed`. Nothing has to listen anywhere.
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <thread>
#include <type_traits>

#include <tidewire.hpp>

#include "check.h"

using namespace std::chrono_literals;
using tidewire::Engine;
using tidewire::Event;

// All dead letters at once: one attempt, and a breaker that stays out of it.
static const char *const GIVES_UP =
    "[engine]\nshards = 2\n[engine.retention]\nkeep = \"all\"\nage_max = \"1h\"\n"
    "[[destination]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\n"
    "retry = { attempts_max = 1 }\nbreaker = { consecutive_failures = 1000000, calls_min = 1000000 }\n"
    "[[rule]]\nid = \"created\"\nbucket = \"b\"\nevents = [\"s3:ObjectCreated:*\"]\ndestinations = [\"hook\"]\n";

static tidewire::Options in(const char *name, const char *config) { return tidewire::Options::text(config, directory(name)); }

static Event created(std::string_view bucket, std::string_view key) {
  return Event(TIDEWIRE_EVENT_OBJECT_CREATED_PUT, bucket, key);
}

static bool has(std::string_view text, std::string_view part) {
  if (text.find(part) != std::string_view::npos) return true;
  printf("     %.*s\n     lacks %.*s\n", static_cast<int>(text.size()), text.data(), static_cast<int>(part.size()), part.data());
  return false;
}

// The code of the Error that it throws, TIDEWIRE_OK if it does not.
template <typename Function>
static tidewire_result_t thrown(Function &&function) {
  try {
    function();
  } catch (const tidewire::Error &error) {
    return error.code();
  }
  return TIDEWIRE_OK;
}

// Whether an exception of the host comes out.
template <typename Function>
static bool throws_as_told(Function &&function) {
  try {
    function();
  } catch (const std::runtime_error &error) {
    return std::string_view(error.what()) == "told";
  }
  return false;
}

static void test_types() {
  static_assert(!std::is_copy_constructible_v<Engine> && std::is_nothrow_move_constructible_v<Engine>);
  static_assert(!std::is_copy_constructible_v<tidewire::Reservation>);
  static_assert(!std::is_copy_assignable_v<tidewire::Completions>);
  static_assert(std::is_nothrow_copy_constructible_v<tidewire::Error>);
  tidewire::Event event("s3:ObjectCreated:Put", "b", std::string_view("k\0k", 3));
  event.metadata("a", "1").metadata("b", "2").tag("t", "x").size(7).time(tidewire::Time(1500ms));
  const tidewire::Event copy = event;
  const tidewire_event_t raw = copy.raw();
  CHECK("types: an event as it was made", raw.key.len == 3 && raw.metadata_count == 2 && raw.tags_count == 1 && raw.has_size &&
                                              raw.size == 7 && raw.time_ns == 1500000000 && raw.event_type == 0);
  CHECK("types: a copy has pairs of its own", raw.metadata != event.raw().metadata && copy.key() == std::string_view("k\0k", 3));
  CHECK("types: one of C is taken over", Event(raw).raw().metadata_count == 2 && Event(raw).bucket() == "b");
  CHECK("types: the version", tidewire::version() == tidewire_version());
  CHECK("types: the schema of filters", has(tidewire::filter_schema(), "$schema"));
}

static void test_errors() {
  auto refused = Engine::try_open(tidewire::Options::text("[engine]\nshard = 2\n", directory("refused")));
  CHECK("errors: expected", !refused && refused.code() == TIDEWIRE_INVALID_CONFIG && has(refused.error().what(), "shards"));
  CHECK("errors: value() throws it", thrown([&] { static_cast<void>(refused.value()); }) == TIDEWIRE_INVALID_CONFIG);
  CHECK("errors: the constructor throws it", thrown([] { Engine engine(tidewire::Options::text("x", "y")); }) == TIDEWIRE_INVALID_CONFIG);
  CHECK("errors: validate", thrown([] { tidewire::validate(tidewire::Options::text("[engine]\nx = 1\n", "d")); }) == TIDEWIRE_INVALID_CONFIG);
  try {
    tidewire::Filter filter("{\"sise\": 1}");
    CHECK("errors: a filter is refused", false);
  } catch (const tidewire::Error &error) {
    const tidewire::Error copy = error;
    CHECK("errors: they have place and remedy", has(copy.what(), "sise") && has(copy.remedy(), "size") && !copy.place().empty());
  }
  CHECK("errors: lint", has(tidewire::lint(GIVES_UP), "["));
}

static void test_filters() {
  tidewire::Filter filter("{\"prefix\": \"in/\", \"size\": {\"min\": 10}}");
  CHECK("filter: passes", filter.matches(created("b", "in/a").size(10)) && !filter.matches(created("b", "in/a").size(9)));
  CHECK("filter: why not", has(filter.explain(created("b", "out/a")), "in/") && filter.explain(created("b", "in/a").size(10)).empty());
  CHECK("filter: what it is", has(filter.json(), "in/") && has(filter.plan_json(), "cost") && !filter.plan().empty());
  tidewire::Filter moved = std::move(filter);
  CHECK("filter: moved", moved.matches(created("b", "in/a").size(10)));
  CHECK("filter: of one that was moved from", thrown([&] { filter.json(); }) == TIDEWIRE_INVALID_ARGUMENT);
  CHECK("filter: CEL", tidewire::Filter("event.size > 3", TIDEWIRE_FILTER_CEL).matches(created("b", "k").size(4)));
}

static void test_publish(const Engine &engine) {
  CHECK("publish: accepted", engine.publish(created("b", "k")) == TIDEWIRE_OUTCOME_ACCEPTED);
  CHECK("publish: no rule", engine.publish(created("other", "k"), tidewire::in_memory()) == TIDEWIRE_OUTCOME_NO_MATCH);
  CHECK("publish: refused", engine.try_publish(created("b", "")).code() == TIDEWIRE_INVALID_EVENT);
  CHECK("publish: interest", engine.is_interested(created("b", "k")) && !engine.is_interested(created("other", "k")));
  std::vector<Event> events{created("b", "1"), created("other", "2"), created("b", "3")};
  CHECK("batch: outcomes", engine.publish_batch(events)[1] == TIDEWIRE_OUTCOME_NO_MATCH);
  events[2] = created("b", "");
  std::vector<tidewire_outcome_t> outcomes;
  CHECK("batch: refused", engine.try_publish_batch(events, outcomes).code() == TIDEWIRE_INVALID_EVENT && outcomes.size() == 3 &&
                              outcomes[0] == TIDEWIRE_OUTCOME_ACCEPTED && outcomes[2] == TIDEWIRE_OUTCOME_REFUSED);
  CHECK("batch: of nothing", engine.publish_batch({}).empty());
  CHECK("json", engine.publish_json("{\"type\": \"s3:ObjectCreated:Put\", \"bucket\": \"b\", \"key\": \"k\"}").accepted == 1);
  CHECK("json: refused", thrown([&] { engine.publish_json("{}"); }) == TIDEWIRE_INVALID_EVENT);
  CHECK("append_at", engine.append_at(5, created("b", "k")) == TIDEWIRE_OUTCOME_ACCEPTED &&
                         engine.append_at(5, created("b", "k")) == TIDEWIRE_OUTCOME_DUPLICATE && engine.last_applied() <= 5);
  CHECK("stats", engine.stats().accepted >= 4 && has(engine.stats_json(), "accepted"));
  auto due = engine.try_flush(0ms).code();
  CHECK("flush: in time or not", due == TIDEWIRE_OK || due == TIDEWIRE_TIMEOUT);
}

static void test_reservations(const Engine &engine) {
  const auto accepted = [&] { return engine.stats().accepted; };
  const std::uint64_t before = accepted();
  { tidewire::Reservation dropped = engine.reserve(created("b", "k")); }
  CHECK("reserve: one that goes is aborted", accepted() == before);
  tidewire::Reservation first = engine.reserve(created("b", "k"));
  tidewire::Reservation moved = std::move(first);
  CHECK("reserve: wanted or not", moved.is_wanted() && !first.is_wanted() && !engine.reserve(created("other", "k")).is_wanted());
  moved.commit(tidewire::Commit().size(3).etag("e").tag("a", "b"));
  CHECK("reserve: committed", accepted() == before + 1);
  CHECK("reserve: not aborted after that", thrown([&] { moved.abort(); }) == TIDEWIRE_INVALID_ARGUMENT);
  CHECK("reserve: no token without a durable intent", moved.try_token().code() == TIDEWIRE_NOT_FOUND);
  CHECK("reserve: of nothing there is nothing to do", thrown([&] { first.commit(), first.abort(); }) == TIDEWIRE_OK);
  std::vector<tidewire::Reservation> both = engine.reserve_batch({created("b", "1"), created("other", "2"), created("b", "3")});
  CHECK("batch: reserved", both.size() == 3 && both[0].is_wanted() && !both[1].is_wanted());
  CHECK("batch: fields for each", tidewire::try_commit_batch(both, std::vector<tidewire::Commit>(2)).code() == TIDEWIRE_INVALID_ARGUMENT);
  tidewire::commit_batch(both, std::vector<tidewire::Commit>(3));
  CHECK("batch: committed", accepted() == before + 3);
  try {
    tidewire::Reservation open = engine.reserve(created("b", "k"));
    throw std::runtime_error("told");
  } catch (const std::runtime_error &) {
  }
  CHECK("reserve: aborted by an exception", accepted() == before + 3);
}

static void test_completions(const Engine &engine) {
  tidewire::Completions queue(engine);
  for (std::uint64_t n = 0; n < 10; n++) engine.submit(created("b", "k"), queue, n);
  engine.reserve(created("b", "k")).submit(queue, 10);
  std::vector<tidewire_completion_t> all;
  for (int round = 0; all.size() < 11 && round < 600; round++) {
    pollfd waits{queue.fd(), POLLIN, 0};
    poll(&waits, 1, 100);
    for (const auto &one : queue.take(3)) all.push_back(one);
  }
  bool good = all.size() == 11;
  for (std::size_t n = 0; good && n < 11; n++) good = all[n].user_data == n && all[n].result == TIDEWIRE_OK;
  CHECK("completions: taken in order", good);
  CHECK("completions: refused", engine.try_submit(created("b", ""), queue, 0).code() == TIDEWIRE_INVALID_EVENT);

  std::atomic<std::size_t> told{0};
  const auto reaches = [&](std::size_t count) {
    for (int round = 0; told < count && round < 6000; round++) std::this_thread::sleep_for(10ms);
    return told == count;
  };
  {
    tidewire::Completions called(engine, [&](const tidewire_completion_t *, std::size_t count) {
      told += count;
      throw std::runtime_error("told");
    });
    for (std::uint64_t n = 0; n < 10; n++) engine.submit(created("b", "k"), called, n);
    CHECK("completions: a callback that throws is called on", reaches(10));
    CHECK("completions: what it threw", throws_as_told([&] { called.rethrow(); }));
    CHECK("completions: not to be taken", called.try_take().code() == TIDEWIRE_INVALID_ARGUMENT);
    tidewire::Completions moved = std::move(called);
    engine.submit(created("b", "k"), moved, 0);
    CHECK("completions: moved", reaches(11));
    moved = tidewire::Completions(engine);
    CHECK("completions: another in its place", moved.fd() >= 0 && moved.take().empty());
  }
  queue.rethrow();
}

static void test_rules(const Engine &engine) {
  const char *rule = "{\"id\": \"more\", \"bucket\": \"b\", \"events\": [\"s3:ObjectRemoved:*\"], \"destinations\": [\"hook\"]}";
  const std::uint64_t version = engine.put_rule(rule, TIDEWIRE_EXPECT_ABSENT);
  CHECK("rules: put", version > 0 && has(engine.rule_json("b", "more"), "ObjectRemoved") && has(engine.rules_json(), "more"));
  CHECK("rules: conflict", thrown([&] { engine.put_rule(rule, version + 7); }) == TIDEWIRE_CONFLICT);
  engine.delete_rule("b", "more", version);
  CHECK("rules: deleted", engine.try_rule_json("b", "more").code() == TIDEWIRE_NOT_FOUND);

  const char *document =
      "{\"QueueConfigurations\": [{\"Id\": \"q\", \"QueueArn\": \"arn:tidewire:sqs:::hook\", \"Events\": [\"s3:ObjectCreated:*\"]}]}";
  engine.check_bucket_notification("docs", document);
  const std::uint64_t put = engine.put_bucket_notification("docs", document, TIDEWIRE_EXPECT_ABSENT);
  std::uint64_t now = 0;
  std::size_t left = 9;
  CHECK("document: given back", has(engine.bucket_notification("docs", TIDEWIRE_NOTIFICATION_XML, &now, &left), "<Id>q</Id>") && now == put && left == 0);
  const auto refused = engine.try_put_bucket_notification("docs", "<a>");
  CHECK("document: refused as S3 does", refused.error().s3_code() == "MalformedXML" && refused.error().s3_status() == 400);
  engine.put_bucket_notification("docs", "{}", put);
  CHECK("document: an empty one", engine.bucket_notification("docs", TIDEWIRE_NOTIFICATION_JSON) == "{}");
  CHECK("metrics", has(engine.prometheus(), "\ntidewire_rules ") && has(engine.prometheus(TIDEWIRE_METRICS_OPENMETRICS), "# EOF"));

  const char *destination =
      "{\"name\": \"d\", \"type\": \"webhook\", \"url\": \"http://127.0.0.1:9/\", "
      "\"auth\": {\"scheme\": \"standard-webhooks\", \"secret\": \"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\"}}";
  engine.put_destination(destination);
  engine.suspend_destination("d");
  CHECK("destinations: suspended", has(engine.destination_json("d"), "suspended") && has(engine.destinations_json(), "\"d\""));
  engine.resume_destination("d");
  engine.confirm_destination("d");
  CHECK("destinations: tested", has(engine.test_destination("d"), "failure"));
  CHECK("destinations: another secret", !engine.rotate_secret("d").empty());
  engine.delete_destination("d", TIDEWIRE_EXPECT_ANYTHING, TIDEWIRE_BACKLOG_PURGE);
  CHECK("destinations: deleted", thrown([&] { engine.suspend_destination("d"); }) == TIDEWIRE_NOT_FOUND);
}

static void test_dead_letters() {
  Engine engine(in("dead", GIVES_UP));
  for (const char *key : {"a", "b", "c"}) engine.publish(created("b", key));
  engine.flush(60s);
  std::string lines;
  CHECK("dead: exported", engine.export_dead_letters([&](std::string_view piece) { lines += piece; }) == 3 && has(lines, "hook"));
  tidewire::DeadLetterFilter one;
  one.key_prefix = "b";
  CHECK("dead: filtered", engine.export_dead_letters([](std::string_view) {}, one) == 1);
  CHECK("dead: a sink that throws", throws_as_told([&] {
          engine.export_dead_letters([](std::string_view) { throw std::runtime_error("told"); });
        }));
  CHECK("dead: redriven", engine.redrive_dead_letters(60s, one).redriven == 1);
  engine.flush(60s);
  CHECK("dead: purged", engine.purge_dead_letters(60s) == 3 && engine.export_dead_letters([](std::string_view) {}) == 0);

  tidewire::ReplayOptions again;
  again.name = "again";
  again.destination = "hook";
  tidewire::Replay replay = engine.start_replay(again);
  replay.wait(60s);
  CHECK("replay: to its end", has(replay.json(), "\"dead_lettered\":3") && has(replay.json(), "done"));
  CHECK("replay: ended", engine.try_find_replay("again").code() == TIDEWIRE_NOT_FOUND && has(engine.replays_json(), "[]"));
  CHECK("replay: refused", engine.try_resume_replay("again", "{}").code() != TIDEWIRE_OK);
  replay.cancel();
}

static void test_reading() {
  Engine engine(in("reading", GIVES_UP));
  tidewire::Tail tail = engine.tail();
  tidewire::ReadOptions of_b;
  of_b.bucket = "b";
  tidewire::Consumer consumer = engine.consumer("workers", of_b);
  for (const char *key : {"a", "b", "c"}) engine.publish(created("b", key).tag("t", key).size(3));
  std::vector<std::string> keys;
  while (keys.size() < 3) {
    const tidewire::Items items = tail.next(2, 10s);
    if (items.empty()) break;
    for (const tidewire::Item item : items) {
      if (item.is_event() && item.event().raw().tags_count == 1 && !item.id().empty()) keys.emplace_back(item.event().key());
    }
  }
  std::sort(keys.begin(), keys.end());
  CHECK("tail: the events", keys == std::vector<std::string>({"a", "b", "c"}));
  CHECK("tail: no more", tail.next(1, 0ms).empty());
  tidewire::ReadOptions again;
  again.from = TIDEWIRE_FROM_POSITION;
  const std::string position = tail.position();
  again.position = position;
  CHECK("tail: from its position", engine.tail(again).next(1, 0ms).empty());
  again.position = "x";
  CHECK("tail: refused", engine.try_tail(again).code() == TIDEWIRE_INVALID_ARGUMENT);
  CHECK("tail: an item that there is not", !tail.next(1, 0ms)[5].is_event());

  std::vector<tidewire_lease_t> leases;
  while (leases.size() < 3) {
    const tidewire::Items items = consumer.fetch(10, 10s);
    if (items.empty()) break;
    for (const tidewire::Item item : items) leases.push_back(item.lease());
  }
  CHECK("consumer: has them", leases.size() == 3);
  if (leases.size() != 3) return;
  consumer.extend(leases[0]);
  consumer.nack(leases[0]);
  const tidewire::Items once_more = consumer.fetch(1, 10s);
  CHECK("consumer: comes again", once_more.size() == 1 && once_more[0].deliveries() == 2);
  consumer.ack(once_more[0].lease());
  consumer.ack({leases[1], leases[2]});
  CHECK("consumer: done", has(engine.groups_json(), "\"acknowledged\":3"));
  CHECK("consumer: done once", thrown([&] { consumer.ack(leases[1]); }) == TIDEWIRE_NOT_FOUND);
  engine.delete_group("workers");
  CHECK("group: deleted", consumer.try_fetch(1, 0ms).code() == TIDEWIRE_NOT_FOUND);
}

static void test_logging(const Engine &engine) {
  std::mutex mutex;
  std::string told;
  tidewire::log_to([&](tidewire_log_level_t level, std::string_view target, std::string_view message) {
    const std::lock_guard<std::mutex> lock(mutex);
    told += std::to_string(static_cast<unsigned>(level)) + " " + std::string(target) + " " + std::string(message) + "\n";
    throw std::runtime_error("dropped");
  });
  engine.suspend_destination("hook");
  engine.resume_destination("hook");
  tidewire::log_to(nullptr);
  CHECK("log: told", has(told, "3 tidewire") && has(told, "`hook`"));
  const std::string before = told;
  engine.suspend_destination("hook");
  engine.resume_destination("hook");
  CHECK("log: not any more", told == before);
}

static void test_in_doubt(const char *dir) {
  Engine engine(tidewire::Options::text(CONFIG, dir));
  CHECK("in doubt: a callback that throws", throws_as_told([&] {
          engine.in_doubt([](std::string_view, tidewire::Time, const Event &) { throw std::runtime_error("told"); });
        }));
  std::vector<std::string> tokens;
  engine.in_doubt([&](std::string_view token, tidewire::Time reserved, const Event &event) {
    const auto age = std::chrono::system_clock::now() - reserved;
    if (event.bucket() == "b" && event.raw().tags_count == 1 && age > -1s && age < 1h) tokens.emplace_back(token);
  });
  CHECK("in doubt: both are told", tokens.size() == 2);
  if (tokens.size() != 2) return;
  engine.resolve_commit(tokens[0], created("b", "k"));
  engine.resolve_abort(tokens[1]);
  CHECK("in doubt: not the other way round", engine.try_resolve_abort(tokens[0]).code() == TIDEWIRE_INVALID_ARGUMENT);
  std::size_t left = 0;
  engine.in_doubt([&](auto &&...) { left++; });
  CHECK("in doubt: resolved", left == 0);
}

static void test_closing() {
  Engine engine(in("closing", CONFIG));
  tidewire::Reservation outlives = engine.reserve(created("b", "k"));
  Engine moved = std::move(engine);
  CHECK("closing: moved from", engine.try_publish(created("b", "k")).code() == TIDEWIRE_INVALID_ARGUMENT && !engine.get());
  moved.close(0ms);
  CHECK("closing: once more does nothing", thrown([&] { moved.close(); }) == TIDEWIRE_OK);
  CHECK("closing: calls after it", moved.try_stats().code() == TIDEWIRE_INVALID_ARGUMENT);
  CHECK("closing: a commit after it", outlives.try_commit().code() == TIDEWIRE_CLOSED);
  Engine again(in("closing", CONFIG));
  again = Engine(in("closing2", CONFIG));
  CHECK("closing: another in its place", Engine::try_open(in("closing", CONFIG)).has_value());
}

// Served by the host itself, in pieces of CloudEvents that have headers.
static const char *const OWN =
    "[engine]\nshards = 1\n"
    "[[destination]]\nname = \"own\"\ntype = \"custom\"\nprofile = \"cloudevents-binary\"\n"
    "retry = { backoff_min = \"10ms\", backoff_max = \"20ms\", poison_attempts = 1 }\n"
    "breaker = { consecutive_failures = 1000000, calls_min = 1000000 }\n"
    "[[rule]]\nid = \"created\"\nbucket = \"b\"\nevents = [\"s3:ObjectCreated:*\"]\ndestinations = [\"own\"]\n";

static void test_handlers() {
  Engine engine(in("handlers", OWN));
  std::atomic<int> calls{0}, good{0};
  auto held = std::make_shared<int>(0);
  engine.set_handler("own", [&, held](tidewire::Batch batch) {
    std::string all;
    for (std::string_view piece : batch.pieces()) all += piece;
    bool type = false;
    for (const auto &[name, value] : batch.headers()) type = type || (name == "ce-type" && !value.empty());
    if (batch.size() == 1 && batch.destination() == "own" && !batch.content_type().empty() && batch.id(0).size() == 38 &&
        batch.record(0) == all && batch.body() == all && type && batch.info().left_ms > 0 &&
        batch.try_event(1).code() == TIDEWIRE_INVALID_ARGUMENT)
      good++;
    switch (calls++) {
      case 0: throw std::runtime_error("told");
      case 1: return;
      case 2: return batch.retry("not now");
      case 3: return batch.retry_after(5ms);
      case 4: return batch.accept_but({0}, "not this");
      case 5: {
        tidewire::Batch moved = std::move(batch);
        moved.accept();
        if (moved.size() == 0 && batch.size() == 0) good++;
        return;
      }
      default: return batch.refuse("never");
    }
  });
  engine.publish(created("b", "k"));
  engine.flush(20s);
  // The function goes on after its answer.
  for (int round = 0; good < 7 && round < 1000; round++) std::this_thread::sleep_for(10ms);
  CHECK("handlers: called until it accepts", calls == 6 && good == 7 && engine.stats().delivered == 1);
  engine.publish(created("b", "k"));
  engine.flush(20s);
  CHECK("handlers: refused", calls == 7 && engine.stats().dead_lettered == 1);
  CHECK("handlers: what it would have in its records",
        engine.details_wanted(created("b", "k")) == (TIDEWIRE_DETAILS_METADATA | TIDEWIRE_DETAILS_TAGS) &&
            engine.details_wanted(created("c", "k")) == TIDEWIRE_DETAILS_NONE);
  CHECK("handlers: the function is held", held.use_count() > 1);
  engine.set_handler("own", nullptr);
  for (int round = 0; held.use_count() > 1 && round < 1000; round++) std::this_thread::sleep_for(10ms);
  CHECK("handlers: and let go", held.use_count() == 1);
  CHECK("handlers: a bad name", engine.try_set_handler("a b", [held](tidewire::Batch) {}).code() == TIDEWIRE_INVALID_CONFIG &&
                                    held.use_count() == 1);
}

static void test_enricher() {
  tidewire::Options options = in("enrich", OWN);
  const tidewire::Time then{std::chrono::seconds(1000000000)};
  std::atomic<int> ticks{0};
  auto lent = std::make_shared<int>(0);
  options.clock = [&ticks, then, lent] {
    if (ticks++ % 2) throw std::runtime_error("told");
    return then;
  };
  {
    Engine engine(options);
    std::mutex mutex;
    std::string seen;
    engine.set_handler("own", [&](tidewire::Batch batch) {
      const std::lock_guard<std::mutex> lock(mutex);
      for (std::size_t n = 0; n < batch.size(); n++) seen += batch.record(n);
      batch.accept();
    });
    auto held = std::make_shared<int>(0);
    tidewire::EnrichOptions how;
    how.timeout = 60s;
    how.fallback_tags.emplace_back("colour", "grey");
    engine.set_enricher(
        [held](const tidewire::Event &event, tidewire::Enrichment &added) {
          added.metadata("album", "summer");
          added.tag("colour", "blue");
          added.data("[1]");
          if (event.key() == "throws") throw std::runtime_error("told");
          if (event.key() == "fails") added.fail("not today");
          if (event.key() == "bad") added.tag("", "x");
        },
        how);
    for (const char *key : {"good", "throws", "fails", "bad"}) engine.publish(created("b", key));
    engine.flush(20s);
    const tidewire_stats_t stats = engine.stats();
    CHECK("enricher: what it throws is no answer", stats.enriched == 1 && stats.enrich_failed == 3 && stats.delivered == 4);
    const std::lock_guard<std::mutex> lock(mutex);
    const auto times = [&](std::string_view what) {
      int n = 0;
      for (std::size_t at = 0; (at = seen.find(what, at)) != std::string::npos; at++) n++;
      return n;
    };
    CHECK("enricher: what was added is in the records", times("summer") == 1 && times("blue") == 1 && times("grey") == 3);
    engine.set_enricher(nullptr);
    for (int round = 0; held.use_count() > 1 && round < 1000; round++) std::this_thread::sleep_for(10ms);
    CHECK("enricher: the function is let go", held.use_count() == 1);
    how.timeout = 61s;
    CHECK("enricher: a bad time", engine.try_set_enricher([held](const tidewire::Event &, tidewire::Enrichment &) {}, how).code() ==
                                          TIDEWIRE_INVALID_ARGUMENT &&
                                      held.use_count() == 1);
    CHECK("clock: asked, and what it throws is no time", ticks > 1);
  }
  options.clock = nullptr;
  CHECK("clock: let go", lent.use_count() == 1);
}

static void test_shared() {
  const std::string socket = std::string(scratch) + "/cpp.sock", address = "unix:" + socket;
  const std::string config = "[engine]\nshared = { socket = \"" + socket + "\" }\n" + strstr(CONFIG, "[[destination]]");
  CHECK("shared: nobody listens", Engine::try_open(tidewire::Options::connect(address, 1ms)).code() == TIDEWIRE_DISCONNECTED);
  Engine engine(tidewire::Options::text(config, directory("shared")));
  Engine client(tidewire::Options::connect(address));
  CHECK("shared: publish", client.publish(created("b", "k")) == TIDEWIRE_OUTCOME_ACCEPTED && engine.stats().accepted == 1);
  {
    tidewire::Reservation held = client.reserve(created("b", "k"));
    held.commit();
    tidewire::Reservation dropped = client.reserve(created("b", "k"));
  }
  CHECK("shared: a reservation", client.stats().accepted == 2);
  CHECK("shared: a handler belongs elsewhere", client.try_set_handler("own", [](tidewire::Batch) {}).code() == TIDEWIRE_INVALID_ARGUMENT);
  CHECK("shared: an enricher belongs elsewhere",
        client.try_set_enricher([](const tidewire::Event &, tidewire::Enrichment &) {}).code() == TIDEWIRE_INVALID_ARGUMENT);
  client.close();
  engine.close(0ms);
  tidewire::Options first = tidewire::Options::text(config, directory("shared"));
  first.shared = true;
  Engine one(first), two(first);
  one.close(0ms);
  CHECK("shared: another takes it over", two.publish(created("b", "k")) == TIDEWIRE_OUTCOME_ACCEPTED);
  two.close(0ms);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  scratch = argv[1];

  // Before any engine of this process: a child that reserves and dies.
  const std::string doubt = directory("doubt");
  const pid_t child = fork();
  if (child == 0) {
    Engine engine(tidewire::Options::text(CONFIG, doubt));
    tidewire::ReserveOptions durable;
    durable.intent = TIDEWIRE_INTENT_DURABLE;
    tidewire::Reservation one = engine.reserve(created("b", "k").tag("t", "1"), durable);
    tidewire::Reservation two = engine.reserve(created("b", "k").tag("t", "2"), durable);
    _exit(one.token() != two.token() ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  CHECK("in doubt: the child has reserved", WIFEXITED(status) && WEXITSTATUS(status) == 0);

  test_types();
  test_errors();
  test_filters();
  {
    Engine engine(in("engine", CONFIG));
    test_publish(engine);
    test_reservations(engine);
    test_completions(engine);
    test_rules(engine);
    test_logging(engine);
    engine.close(0ms);
  }
  test_dead_letters();
  test_reading();
  test_in_doubt(doubt.c_str());
  test_handlers();
  test_enricher();
  test_shared();
  test_closing();
  printf("%u passed, %u failed\n", passed, failed);
  return failed ? 1 : 0;
}
