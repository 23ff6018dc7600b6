// Drives the notification as operations of the gateway would, and says what went wrong.
//
//   c++ -std=c++17 main.cc -ltidewire -o rgw && ./rgw http://127.0.0.1:8080/ /tmp/tidewire-rgw
//
// The receiver shall get one event for each of `put`, `copied`, `removed`, and none for `failed`, `aborted` and `unwanted`.
#include <cstdlib>
#include <iostream>
#include <memory>

#include "notification.hpp"

using namespace rgw;

namespace {

int failures = 0;

void check(bool condition, const char *what) {
  if (condition) return;
  std::cerr << "wrong: " << what << "\n";
  failures++;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 3) {
    std::cerr << "usage: " << argv[0] << " WEBHOOK-URL DATA-DIRECTORY\n";
    return 2;
  }
  // One event at most waits for `full`, where nobody listens, and then it refuses.
  const std::string config = R"(
[engine]
close_timeout = "1s"
[[destination]]
name = "hook"
type = "webhook"
url = ")" + std::string(argv[1]) + R"("
[[destination]]
name = "full"
type = "webhook"
url = "http://127.0.0.1:9/"
queue = { events_max = 1, on_full = "refuse" }
[[rule]]
id = "photos"
bucket = "photos"
events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
destinations = ["hook"]
[[rule]]
id = "full"
bucket = "full"
events = ["s3:ObjectCreated:*"]
destinations = ["full"]
)";
  try {
    tidewire::Options options = tidewire::Options::text(config);
    options.data_dir = argv[2];
    const tidewire::Engine engine(options);
    sal::Bucket photos("photos", "", "tom"), full("full"), other("other", "tenant");
    const meta_map_t metadata{{"x-amz-meta-album", "summer"}};
    RGWObjTags tags;
    tags.add_tag("colour", "blue");
    const sal::TidewireRequest request{"tom", "tx01", "host", "192.0.2.7", "test", &metadata};
    const auto now = ceph::real_time(std::chrono::system_clock::now());
    const auto notify = [&](sal::Object &object, notify::EventType type, sal::Object *source = nullptr) {
      return std::make_unique<sal::TidewireNotification>(engine, &object, source, type, request);
    };

    sal::Object put(&photos, "put"), copied(&photos, "copied"), removed(&photos, "removed");
    auto n = notify(put, notify::ObjectCreatedPut);
    check(n->publish_reserve(nullptr, &tags) == 0, "a reservation is refused");
    check(n->publish_commit(nullptr, 1024, now, "\"9e107d9d372bb6826bd81d3542a419d6\"", "v1") == 0, "a commit fails");
    check(n->publish_commit(nullptr, 1024, now, "", "") == 0, "a second commit fails");
    n = notify(copied, notify::ObjectCreatedCopy, &put);
    check(n->publish_reserve(nullptr) == 0 && n->publish_commit(nullptr, 1024, now, "e", "") == 0, "a copy");
    n = notify(removed, notify::ObjectRemovedDelete);
    check(n->publish_reserve(nullptr) == 0 && n->publish_commit(nullptr, 0, now, "", "") == 0, "a removal");

    sal::Object failed(&photos, "failed"), aborted(&photos, "aborted"), unwanted(&other, "unwanted"), empty(&photos, "");
    n = notify(failed, notify::ObjectCreatedPut);
    check(n->publish_reserve(nullptr) == 0, "a reservation is refused");
    n.reset();  // the operation failed
    auto a = notify(aborted, notify::ObjectCreatedPut);
    check(a->publish_reserve(nullptr) == 0 && a->publish_abort(nullptr) == 0, "an abort fails");
    check(a->publish_commit(nullptr, 1, now, "", "") == -EINVAL, "a commit after an abort succeeds");
    n = notify(unwanted, notify::ObjectCreatedPut);
    check(n->publish_reserve(nullptr) == 0 && n->publish_commit(nullptr, 1, now, "", "") == 0, "what no rule wants");
    n = notify(empty, notify::ObjectCreatedPut);
    check(n->publish_reserve(nullptr) == -EINVAL, "an object without a name");

    int refused = 0, done = 0;
    for (; refused == 0 && done < 1000; done++) {
      sal::Object object(&full, "object-" + std::to_string(done));
      n = notify(object, notify::ObjectCreatedPut);
      refused = n->publish_reserve(nullptr);
      if (refused == 0) check(n->publish_commit(nullptr, 1, now, "", "") == 0, "a commit after a reservation fails");
    }
    check(refused == -EBUSY, "a full queue takes everything");
  } catch (const std::exception &e) {
    std::cerr << e.what() << "\n";
    return EXIT_FAILURE;
  }
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
