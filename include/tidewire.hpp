/* Tidewire for C++17: what tidewire.h has, as classes that free what they hold. Nothing but this header and tidewire.h is
 * needed; link with -ltidewire.
 *
 *   tidewire::Engine engine(tidewire::Options::file("/etc/tidewire.toml"));
 *   engine.publish(tidewire::Event(TIDEWIRE_EVENT_OBJECT_CREATED_PUT, "bucket", "key").size(1024));
 *
 * A call that can fail is there twice: `publish` throws a tidewire::Error, `try_publish` answers a tidewire::Expected, which
 * has the result or the Error, and never throws one. Without exceptions (-fno-exceptions) the first ends the program.
 * What a call does, and with which codes it fails, tidewire.h says at the function of the same name.
 *
 * Texts and bytes are given as std::string_view. An Event and the options keep views of what they are given: it has to live
 * until the call that they are used in. What a class holds is freed with it; a class that was moved from holds nothing, and
 * calls on it fail with TIDEWIRE_INVALID_ARGUMENT. Threads: as for what it holds, see tidewire.h.
 *
 * A callback may throw. The exception does not cross the library: it comes out of the call that was calling back, or, where
 * that is a thread of the library, out of Completions::rethrow.
 *
 * Licence: Apache-2.0 or MIT.
 */
#ifndef TIDEWIRE_HPP
#define TIDEWIRE_HPP

#include <tidewire.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace tidewire {

using Milliseconds = std::chrono::milliseconds;
/** A time of day, as events have it; its resolution is that of the system's clock. */
using Time = std::chrono::system_clock::time_point;

/** An argument for a function of tidewire.h. Nothing is copied. */
inline tidewire_bytes_t bytes(std::string_view text) noexcept { return tidewire_bytes(text.data(), text.size()); }

/** Bytes of tidewire.h. Nothing is copied. */
inline std::string_view view(tidewire_bytes_t bytes) noexcept {
  return bytes.len ? std::string_view(reinterpret_cast<const char *>(bytes.data), bytes.len) : std::string_view();
}

/** What went wrong in one call. To copy it does not throw. */
class Error : public std::exception {
 public:
  Error(tidewire_result_t code, std::string message, std::string place = {}, std::string remedy = {},
        std::string s3_code = "InternalError", unsigned s3_status = 500)
      : code_(code),
        text_(std::make_shared<const Text>(
            Text{std::move(message), std::move(place), std::move(remedy), std::move(s3_code), s3_status})) {}

  /** Takes over what a function of tidewire.h has answered, and frees it. */
  static Error take(tidewire_result_t code, tidewire_error_t *error) {
    const std::unique_ptr<tidewire_error_t, void (*)(tidewire_error_t *)> held(error, tidewire_error_free);
    return Error(code, tidewire_error_message(error), tidewire_error_place(error), tidewire_error_remedy(error),
                 tidewire_error_s3_code(error), tidewire_error_s3_status(error));
  }

  /** What kind of error it is; programs look at this. */
  tidewire_result_t code() const noexcept { return code_; }
  /** What happened, where, and what to do about it, for people. */
  const char *what() const noexcept override { return text_->message.c_str(); }
  /** Where in what was given it went wrong; may be empty. */
  std::string_view place() const noexcept { return text_->place; }
  /** What to do about it; may be empty. */
  std::string_view remedy() const noexcept { return text_->remedy; }
  /** What S3 calls it in the document that its clients get. */
  std::string_view s3_code() const noexcept { return text_->s3_code; }
  /** The HTTP status that S3 answers. */
  unsigned s3_status() const noexcept { return text_->s3_status; }

 private:
  struct Text {
    std::string message, place, remedy, s3_code;
    unsigned s3_status;
  };
  tidewire_result_t code_;
  std::shared_ptr<const Text> text_;
};

/** @private */
namespace detail {
[[noreturn]] inline void fail(const Error &error) {
#if defined(__cpp_exceptions)
  throw error;
#else
  static_cast<void>(error);
  std::terminate();
#endif
}
struct Nothing {};
}  // namespace detail

/** A result, or why there is none. A small part of what std::expected of C++23 is. */
template <typename T>
class [[nodiscard]] Expected {
  using Held = std::conditional_t<std::is_void_v<T>, detail::Nothing, T>;

 public:
  Expected(Held value) : held_(std::in_place_index<0>, std::move(value)) {}
  Expected(Error error) : held_(std::in_place_index<1>, std::move(error)) {}

  bool has_value() const noexcept { return held_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }

  /** The result; throws the Error if there is none. */
  T value() && {
    if (!has_value()) detail::fail(std::get<1>(held_));
    if constexpr (!std::is_void_v<T>) return std::move(*std::get_if<0>(&held_));
  }
  Held &value() & {
    if (!has_value()) detail::fail(std::get<1>(held_));
    return *std::get_if<0>(&held_);
  }
  /** Only if there is a result. */
  Held &operator*() noexcept { return *std::get_if<0>(&held_); }
  Held *operator->() noexcept { return std::get_if<0>(&held_); }
  /** Only if there is none. */
  const Error &error() const noexcept { return *std::get_if<1>(&held_); }
  /** TIDEWIRE_OK, or the code of the Error. */
  tidewire_result_t code() const noexcept { return has_value() ? TIDEWIRE_OK : error().code(); }

 private:
  std::variant<Held, Error> held_;
};

/** @private */
namespace detail {

inline std::uint64_t ms(Milliseconds time) noexcept {
  return time.count() > 0 ? static_cast<std::uint64_t>(time.count()) : 0;
}

inline std::uint64_t ns(Time time) noexcept {
  const auto since = std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
  return since > 0 ? static_cast<std::uint64_t>(since) : 0;
}

inline Time time(std::uint64_t ns) {
  return Time(std::chrono::duration_cast<Time::duration>(std::chrono::nanoseconds(ns)));
}

/** `function` takes the address of an error. */
template <typename Function>
Expected<void> call(Function &&function) {
  tidewire_error_t *error = nullptr;
  const tidewire_result_t result = function(&error);
  if (result == TIDEWIRE_OK) return Nothing{};
  return Error::take(result, error);
}

/** `function` takes the address of a T, which is set, and that of an error. */
template <typename T, typename Function>
Expected<T> get(Function &&function) {
  T out{};
  auto done = call([&](tidewire_error_t **error) { return function(&out, error); });
  if (!done) return done.error();
  return out;
}

/** The same for a text, which is freed. */
template <typename Function>
Expected<std::string> text(Function &&function) {
  char *out = nullptr;
  std::size_t len = 0;
  auto done = call([&](tidewire_error_t **error) { return function(&out, &len, error); });
  if (!done) return done.error();
  const std::unique_ptr<char, void (*)(char *)> held(out, tidewire_string_free);
  return std::string(out, len);
}

/** A function that a C callback calls, and what it has thrown. */
template <typename Function>
class Guarded {
 public:
  explicit Guarded(Function &function) : function_(function) {}

  /** False if it has thrown, now or before. */
  template <typename... Args>
  bool operator()(Args &&...args) noexcept {
#if defined(__cpp_exceptions)
    if (thrown_) return false;
    try {
      function_(std::forward<Args>(args)...);
    } catch (...) {
      thrown_ = std::current_exception();
    }
    return !thrown_;
#else
    function_(std::forward<Args>(args)...);
    return true;
#endif
  }

  void rethrow() {
    if (auto thrown = std::exchange(thrown_, nullptr)) std::rethrow_exception(thrown);
  }

 private:
  Function &function_;
  std::exception_ptr thrown_;
};

/** A pointer that is freed by a function that takes its address. */
template <typename T, void (*Free)(T **)>
class Owned {
 public:
  explicit Owned(T *held = nullptr) noexcept : held_(held) {}
  Owned(Owned &&other) noexcept : held_(std::exchange(other.held_, nullptr)) {}
  Owned &operator=(Owned &&other) noexcept {
    if (this != &other) {
      Free(&held_);
      held_ = std::exchange(other.held_, nullptr);
    }
    return *this;
  }
  ~Owned() { Free(&held_); }
  T *get() const noexcept { return held_; }
  T **address() noexcept { return &held_; }

 private:
  T *held_;
};

inline void close(tidewire_engine_t **engine) { tidewire_close(engine, TIDEWIRE_TIMEOUT_CONFIGURED, nullptr); }

inline void free(tidewire_filter_t **filter) { tidewire_filter_free(std::exchange(*filter, nullptr)); }

}  // namespace detail

/** @private */
namespace detail {
/** What an event and a commit both have. */
template <typename Self, typename Raw>
class Described {
 public:
  Self &time(Time time) { return raw_.time_ns = ns(time), self(); }
  Self &size(std::uint64_t size) { return raw_.size = size, raw_.has_size = 1, self(); }
  Self &version_id(std::string_view text) { return raw_.version_id = bytes(text), self(); }
  Self &etag(std::string_view text) { return raw_.etag = bytes(text), self(); }
  Self &content_type(std::string_view text) { return raw_.content_type = bytes(text), self(); }
  Self &data(std::string_view json) { return raw_.data = bytes(json), self(); }
  Self &metadata(std::string_view name, std::string_view value) { return metadata_.push_back(pair(name, value)), self(); }
  Self &tag(std::string_view name, std::string_view value) { return tags_.push_back(pair(name, value)), self(); }

  /** For tidewire.h; it points into this. */
  Raw raw() const noexcept {
    Raw raw = raw_;
    raw.metadata = metadata_.data();
    raw.metadata_count = metadata_.size();
    raw.tags = tags_.data();
    raw.tags_count = tags_.size();
    return raw;
  }

 protected:
  Described() : raw_(tidewire_initialised_<Raw>()) {}
  explicit Described(const Raw &raw)
      : raw_(raw), metadata_(raw.metadata, raw.metadata + raw.metadata_count), tags_(raw.tags, raw.tags + raw.tags_count) {}
  Self &self() noexcept { return static_cast<Self &>(*this); }

  Raw raw_;

 private:
  static tidewire_pair_t pair(std::string_view name, std::string_view value) noexcept { return {bytes(name), bytes(value)}; }

  std::vector<tidewire_pair_t> metadata_, tags_;
};
}  // namespace detail

/** One thing that happened to one resource: see tidewire_event_t. Keeps views only. */
class Event : public detail::Described<Event, tidewire_event_t> {
 public:
  Event(tidewire_event_type_t type, std::string_view bucket, std::string_view key) {
    raw_.event_type = type;
    raw_.bucket = bytes(bucket);
    raw_.key = bytes(key);
  }
  /** Of a type that is given by name, such as one that the configuration registers. */
  Event(std::string_view type, std::string_view bucket, std::string_view key) : Event(TIDEWIRE_EVENT_NAMED, bucket, key) {
    raw_.event_type_name = bytes(type);
  }
  /** One of tidewire.h; its metadata and tags are kept as views, too. */
  explicit Event(const tidewire_event_t &raw) : Described(raw) {}

  Event &priority(tidewire_priority_t priority) { return raw_.priority = priority, *this; }
  Event &origin(tidewire_origin_t origin) { return raw_.origin = origin, *this; }
  Event &hops(std::uint8_t hops) { return raw_.hops = hops, *this; }
  Event &requester(std::string_view text) { return raw_.requester = bytes(text), *this; }
  Event &source_ip(std::string_view text) { return raw_.source_ip = bytes(text), *this; }
  Event &request_id(std::string_view text) { return raw_.request_id = bytes(text), *this; }
  Event &host_id(std::string_view text) { return raw_.host_id = bytes(text), *this; }
  Event &region(std::string_view text) { return raw_.region = bytes(text), *this; }
  Event &method(std::string_view text) { return raw_.method = bytes(text), *this; }
  Event &user_agent(std::string_view text) { return raw_.user_agent = bytes(text), *this; }
  Event &bucket_owner(std::string_view text) { return raw_.bucket_owner = bytes(text), *this; }

  std::string_view bucket() const noexcept { return view(raw_.bucket); }
  std::string_view key() const noexcept { return view(raw_.key); }
};

/** How an event is published: see tidewire_publish_options_t. */
struct PublishOptions {
  tidewire_ack_t ack = TIDEWIRE_ACK_SYNCED;
  tidewire_on_full_t on_full = TIDEWIRE_ON_FULL_BLOCK;
  /** 0 means 30 s. */
  Milliseconds full_timeout{0};
  /** 0 means 30 s. */
  Milliseconds ack_timeout{0};
  std::string_view dedup_key{};

  tidewire_publish_options_t raw() const noexcept {
    tidewire_publish_options_t raw = TIDEWIRE_PUBLISH_OPTIONS_INIT;
    raw.ack = ack;
    raw.on_full = on_full;
    raw.full_timeout_ms = detail::ms(full_timeout);
    raw.ack_timeout_ms = detail::ms(ack_timeout);
    raw.dedup_key = bytes(dedup_key);
    return raw;
  }
};

/** With TIDEWIRE_ACK_MEMORY: the call does not wait for the disk. */
inline PublishOptions in_memory() noexcept {
  PublishOptions options;
  options.ack = TIDEWIRE_ACK_MEMORY;
  return options;
}

/** How an engine is opened: see tidewire_options_t. */
struct Options {
  std::string_view config_text{};
  std::string_view config_path{};
  std::string_view data_dir{};
  /** The engine of another process, such as "unix:/run/tidewire/engine.sock"; then there is nothing of the above. */
  std::string_view address{};
  /** 0 means 5 s. */
  Milliseconds connect_timeout{0};
  /** For several processes, of which the first has the engine. */
  bool shared = false;
  /** The wall clock; if it is empty, that of the machine. See tidewire_clock_callback_t. When it throws, the machine's is asked.
   * The engine keeps a copy. */
  std::function<Time()> clock{};

  static Options text(std::string_view config, std::string_view data_dir = {}) noexcept {
    Options options;
    options.config_text = config;
    options.data_dir = data_dir;
    return options;
  }
  static Options file(std::string_view path, std::string_view data_dir = {}) noexcept {
    Options options;
    options.config_path = path;
    options.data_dir = data_dir;
    return options;
  }
  static Options connect(std::string_view address, Milliseconds timeout = Milliseconds(0)) noexcept {
    Options options;
    options.address = address;
    options.connect_timeout = timeout;
    return options;
  }

  tidewire_options_t raw() const noexcept {
    tidewire_options_t raw = TIDEWIRE_OPTIONS_INIT;
    raw.config_text = bytes(config_text);
    raw.config_path = bytes(config_path);
    raw.data_dir = bytes(data_dir);
    raw.address = bytes(address);
    raw.connect_timeout_ms = detail::ms(connect_timeout);
    raw.shared = shared ? 1 : 0;
    return raw;
  }
};

/** How an event is reserved: see tidewire_reserve_options_t. */
struct ReserveOptions {
  tidewire_intent_t intent = TIDEWIRE_INTENT_NONE;
  /** 0 means what the event has and 512 more. */
  std::size_t bytes_max = 0;
  /** 0 means not to wait. */
  Milliseconds full_timeout{0};
  /** 0 means 30 s. */
  Milliseconds ack_timeout{0};

  tidewire_reserve_options_t raw() const noexcept {
    tidewire_reserve_options_t raw = TIDEWIRE_RESERVE_OPTIONS_INIT;
    raw.intent = intent;
    raw.bytes_max = bytes_max;
    raw.full_timeout_ms = detail::ms(full_timeout);
    raw.ack_timeout_ms = detail::ms(ack_timeout);
    return raw;
  }
};

/** What is known of an event only after the operation: see tidewire_commit_t. Keeps views only. */
class Commit : public detail::Described<Commit, tidewire_commit_t> {
 public:
  Commit() {}
};

/** Which dead letters are meant: see tidewire_dead_letter_filter_t. */
struct DeadLetterFilter {
  std::string_view ids{}, destination{}, bucket{}, key_prefix{}, reason{};
  std::optional<Time> from{}, before{};

  tidewire_dead_letter_filter_t raw() const noexcept {
    tidewire_dead_letter_filter_t raw = TIDEWIRE_DEAD_LETTER_FILTER_INIT;
    raw.ids = bytes(ids);
    raw.destination = bytes(destination);
    raw.bucket = bytes(bucket);
    raw.key_prefix = bytes(key_prefix);
    raw.reason = bytes(reason);
    if (from) raw.from_ns = detail::ns(*from);
    if (before) raw.before_ns = detail::ns(*before);
    return raw;
  }
};

/** A condition on events: see tidewire_filter_t. */
class Filter {
 public:
  explicit Filter(std::string_view text, tidewire_filter_format_t format = TIDEWIRE_FILTER_JSON)
      : Filter(try_parse(text, format).value()) {}

  static Expected<Filter> try_parse(std::string_view text, tidewire_filter_format_t format = TIDEWIRE_FILTER_JSON) {
    auto got = detail::get<tidewire_filter_t *>(
        [&](tidewire_filter_t **out, tidewire_error_t **error) { return tidewire_filter_parse(format, bytes(text), out, error); });
    if (!got) return got.error();
    return Filter(*got);
  }

  bool matches(const Event &event) const { return try_matches(event).value(); }
  Expected<bool> try_matches(const Event &event) const {
    const tidewire_event_t raw = event.raw();
    return detail::get<bool>([&](bool *out, auto error) { return tidewire_filter_matches(get(), &raw, out, error); });
  }
  /** Why an event does not pass; empty if it does. */
  std::string explain(const Event &event) const { return try_explain(event).value(); }
  Expected<std::string> try_explain(const Event &event) const {
    const tidewire_event_t raw = event.raw();
    return detail::text([&](auto... out) { return tidewire_filter_explain(get(), &raw, out...); });
  }
  std::string plan() const { return try_plan().value(); }
  Expected<std::string> try_plan() const {
    return detail::text([&](auto... out) { return tidewire_filter_plan(get(), out...); });
  }
  std::string plan_json() const { return try_plan_json().value(); }
  Expected<std::string> try_plan_json() const {
    return detail::text([&](auto... out) { return tidewire_filter_plan_json(get(), out...); });
  }
  std::string json() const { return try_json().value(); }
  Expected<std::string> try_json() const {
    return detail::text([&](auto... out) { return tidewire_filter_json(get(), out...); });
  }

  const tidewire_filter_t *get() const noexcept { return held_.get(); }

 private:
  explicit Filter(tidewire_filter_t *held) noexcept : held_(held) {}
  detail::Owned<tidewire_filter_t, detail::free> held_;
};

class Engine;

/** A queue of completions: see tidewire_completions_t. */
class Completions {
 public:
  /** Called by a thread of the queue: see tidewire_completions_callback_t. */
  using Callback = std::function<void(const tidewire_completion_t *completions, std::size_t count)>;

  /** To be taken with `take` when `fd` is readable. */
  explicit Completions(const Engine &engine) : Completions(try_open(engine).value()) {}
  /** Told to a callback. */
  Completions(const Engine &engine, Callback callback) : Completions(try_open(engine, std::move(callback)).value()) {}
  static Expected<Completions> try_open(const Engine &engine, Callback callback = nullptr);

  Completions(Completions &&) noexcept = default;
  /** The queue that was here is freed before its callback. */
  Completions &operator=(Completions &&other) noexcept {
    held_ = std::move(other.held_);
    called_ = std::move(other.called_);
    return *this;
  }

  int fd() const noexcept { return tidewire_completions_fd(get()); }
  /** Up to `max`; never waits. */
  std::vector<tidewire_completion_t> take(std::size_t max = 256) const { return try_take(max).value(); }
  Expected<std::vector<tidewire_completion_t>> try_take(std::size_t max = 256) const {
    std::vector<tidewire_completion_t> taken(max);
    auto count = detail::get<std::size_t>([&](std::size_t *out, auto error) {
      return tidewire_completions_take(get(), taken.data(), max, out, error);
    });
    if (!count) return count.error();
    taken.resize(*count);
    return taken;
  }

  /** Throws what the callback has thrown last, once; does nothing if it has not. Later completions are told all the same. */
  void rethrow() {
    if (!called_) return;
    std::unique_lock<std::mutex> lock(called_->mutex);
    auto thrown = std::exchange(called_->thrown, nullptr);
    lock.unlock();
    if (thrown) std::rethrow_exception(thrown);
  }

  const tidewire_completions_t *get() const noexcept { return held_.get(); }

 private:
  struct Called {
    Callback callback;
    std::mutex mutex;
    std::exception_ptr thrown;
  };

  static void call(void *data, const tidewire_completion_t *completions, std::size_t count) noexcept {
    auto &called = *static_cast<Called *>(data);
    detail::Guarded<Callback> guarded(called.callback);
    if (guarded(completions, count)) return;
#if defined(__cpp_exceptions)
    try {
      guarded.rethrow();
    } catch (...) {
      const std::lock_guard<std::mutex> lock(called.mutex);
      called.thrown = std::current_exception();
    }
#endif
  }

  Completions(tidewire_completions_t *held, std::unique_ptr<Called> called) noexcept
      : called_(std::move(called)), held_(held) {}

  std::unique_ptr<Called> called_;
  /* After what its thread uses, so that it goes first. */
  detail::Owned<tidewire_completions_t, tidewire_completions_free> held_;
};

/** Some events of a destination that the host serves itself: see tidewire_batch_t. One that goes without an answer is tried
 * again. After an answer it holds nothing. */
class Batch {
 public:
  /** Takes over what a handler was given. */
  explicit Batch(tidewire_batch_t *held) noexcept : held_(held) {}

  tidewire_batch_info_t info() const { return try_info().value(); }
  Expected<tidewire_batch_info_t> try_info() const {
    tidewire_batch_info_t info = TIDEWIRE_BATCH_INFO_INIT;
    auto done = detail::call([&](auto error) { return tidewire_batch_info(get(), &info, error); });
    if (!done) return done.error();
    return info;
  }
  /** How many events it has; 0 if it holds nothing. */
  std::size_t size() const noexcept {
    tidewire_batch_info_t info = TIDEWIRE_BATCH_INFO_INIT;
    return tidewire_batch_info(get(), &info, nullptr) == TIDEWIRE_OK ? info.events : 0;
  }
  std::string_view destination() const { return view(info().destination); }
  std::string_view content_type() const { return view(info().content_type); }

  std::string_view id(std::size_t event) const { return try_event(event).value().id; }
  std::string_view record(std::size_t event) const { return view(try_event(event).value().record); }
  Expected<tidewire_batch_event_t> try_event(std::size_t event) const {
    tidewire_batch_event_t out = TIDEWIRE_BATCH_EVENT_INIT;
    auto done = detail::call([&](auto error) { return tidewire_batch_event(get(), event, &out, error); });
    if (!done) return done.error();
    return out;
  }
  std::vector<std::pair<std::string_view, std::string_view>> headers() const {
    std::vector<std::pair<std::string_view, std::string_view>> all(info().headers);
    for (std::size_t n = 0; n < all.size(); n++) {
      auto got = detail::get<tidewire_pair_t>([&](auto... out) { return tidewire_batch_header(get(), n, out...); });
      const tidewire_pair_t &pair = got.value();
      all[n] = {view(pair.name), view(pair.value)};
    }
    return all;
  }
  /** The body that a webhook would get, as pieces that make it one after the other. */
  std::vector<std::string_view> pieces() const {
    std::vector<tidewire_bytes_t> raw(info().pieces);
    detail::get<std::size_t>([&](auto... out) { return tidewire_batch_body(get(), raw.data(), raw.size(), out...); }).value();
    std::vector<std::string_view> all;
    for (const tidewire_bytes_t &piece : raw) all.push_back(view(piece));
    return all;
  }
  /** The same, copied into one. */
  std::string body() const {
    std::string all;
    all.reserve(info().body_bytes);
    for (std::string_view piece : pieces()) all += piece;
    return all;
  }

  void accept() noexcept { tidewire_batch_accept(held_.address()); }
  void accept_but(const std::vector<std::size_t> &failed, std::string_view reason = {}) {
    try_accept_but(failed, reason).value();
  }
  Expected<void> try_accept_but(const std::vector<std::size_t> &failed, std::string_view reason = {}) {
    return detail::call([&](auto error) {
      return tidewire_batch_accept_but(held_.address(), failed.data(), failed.size(), bytes(reason), error);
    });
  }
  void retry(std::string_view reason = {}) { try_retry(reason).value(); }
  Expected<void> try_retry(std::string_view reason = {}) {
    return detail::call([&](auto error) { return tidewire_batch_retry(held_.address(), bytes(reason), error); });
  }
  void retry_after(Milliseconds wait, std::string_view reason = {}) { try_retry_after(wait, reason).value(); }
  Expected<void> try_retry_after(Milliseconds wait, std::string_view reason = {}) {
    return detail::call(
        [&](auto error) { return tidewire_batch_retry_after(held_.address(), detail::ms(wait), bytes(reason), error); });
  }
  void refuse(std::string_view reason = {}) { try_refuse(reason).value(); }
  Expected<void> try_refuse(std::string_view reason = {}) {
    return detail::call([&](auto error) { return tidewire_batch_refuse(held_.address(), bytes(reason), error); });
  }

  const tidewire_batch_t *get() const noexcept { return held_.get(); }

 private:
  detail::Owned<tidewire_batch_t, tidewire_batch_free> held_;
};

/** Serves destinations: see tidewire_handler_callback_t. If it throws, the batch is tried again unless it was answered. */
using Handler = std::function<void(Batch batch)>;

/** What an enricher adds to an event: see tidewire_enrichment_t. Good during the call that it was given to. */
class Enrichment {
 public:
  explicit Enrichment(tidewire_enrichment_t *held) noexcept : held_(held) {}

  void metadata(std::string_view name, std::string_view value) { try_metadata(name, value).value(); }
  Expected<void> try_metadata(std::string_view name, std::string_view value) {
    return detail::call(
        [&](auto error) { return tidewire_enrich_set_metadata(held_, bytes(name), bytes(value), error); });
  }
  void tag(std::string_view name, std::string_view value) { try_tag(name, value).value(); }
  Expected<void> try_tag(std::string_view name, std::string_view value) {
    return detail::call([&](auto error) { return tidewire_enrich_set_tag(held_, bytes(name), bytes(value), error); });
  }
  /** A JSON document. */
  void data(std::string_view json) { try_data(json).value(); }
  Expected<void> try_data(std::string_view json) {
    return detail::call([&](auto error) { return tidewire_enrich_set_data(held_, bytes(json), error); });
  }
  /** The event gets the fallback. */
  void fail(std::string_view reason) noexcept { tidewire_enrich_fail(held_, bytes(reason), nullptr); }

  tidewire_enrichment_t *get() const noexcept { return held_; }

 private:
  tidewire_enrichment_t *held_;
};

/** Adds to an event, of which it has a view during the call. Called from several threads at the same time where there are several
 * shards. If it throws, the event gets the fallback. */
using Enricher = std::function<void(const Event &event, Enrichment &added)>;

/** How an enricher is used: see tidewire_enricher_t. */
struct EnrichOptions {
  /** 0 means 100 ms. */
  Milliseconds timeout{0};
  std::vector<std::pair<std::string_view, std::string_view>> fallback_metadata{};
  std::vector<std::pair<std::string_view, std::string_view>> fallback_tags{};
};

/** Space for one event, and the promise that its commit is not refused: see tidewire_reservation_t. One that is neither
 * committed nor aborted when it goes is aborted. */
class Reservation {
 public:
  /** For nothing, as for an event that no rule wants: to commit or abort it does nothing. */
  Reservation() noexcept = default;
  explicit Reservation(tidewire_reservation_t *held) noexcept : held_(held) {}

  /** Whether a rule may want the event. */
  bool is_wanted() const noexcept { return held_.get() != nullptr; }

  void commit(const Commit &fields = {}, const PublishOptions &options = {}) const { try_commit(fields, options).value(); }
  Expected<void> try_commit(const Commit &fields = {}, const PublishOptions &options = {}) const {
    const tidewire_commit_t f = fields.raw();
    const tidewire_publish_options_t o = options.raw();
    return detail::call([&](auto error) { return tidewire_commit(get(), &f, &o, error); });
  }
  void submit(const Completions &completions, std::uint64_t user_data, const Commit &fields = {},
              const PublishOptions &options = {}) const {
    try_submit(completions, user_data, fields, options).value();
  }
  Expected<void> try_submit(const Completions &completions, std::uint64_t user_data, const Commit &fields = {},
                            const PublishOptions &options = {}) const {
    const tidewire_commit_t f = fields.raw();
    const tidewire_publish_options_t o = options.raw();
    return detail::call(
        [&](auto error) { return tidewire_commit_submit(get(), &f, &o, completions.get(), user_data, error); });
  }
  void abort() const { try_abort().value(); }
  Expected<void> try_abort() const {
    return detail::call([&](auto error) { return tidewire_abort(get(), error); });
  }
  std::string token() const { return try_token().value(); }
  Expected<std::string> try_token() const {
    char token[TIDEWIRE_TOKEN_BYTES] = {};
    auto done = detail::call([&](auto error) { return tidewire_reservation_token(get(), token, error); });
    if (!done) return done.error();
    return std::string(token);
  }

  const tidewire_reservation_t *get() const noexcept { return held_.get(); }

 private:
  detail::Owned<tidewire_reservation_t, tidewire_reservation_free> held_;
};

/** Commits several reservations, and waits once for all of them: see tidewire_commit_batch. `fields` has one entry for each,
 * or none. */
inline Expected<void> try_commit_batch(const std::vector<Reservation> &reservations, const std::vector<Commit> &fields = {},
                                       const PublishOptions &options = {}) {
  if (!fields.empty() && fields.size() != reservations.size()) {
    return Error(TIDEWIRE_INVALID_ARGUMENT, "fields: give one entry for each reservation, or none", "fields",
                 "give one entry for each reservation, or none");
  }
  std::vector<const tidewire_reservation_t *> held;
  std::vector<tidewire_commit_t> raw;
  for (const Reservation &reservation : reservations) held.push_back(reservation.get());
  for (const Commit &commit : fields) raw.push_back(commit.raw());
  const tidewire_publish_options_t o = options.raw();
  return detail::call([&](auto error) {
    return tidewire_commit_batch(held.data(), raw.empty() ? nullptr : raw.data(), held.size(), &o, error);
  });
}
inline void commit_batch(const std::vector<Reservation> &reservations, const std::vector<Commit> &fields = {},
                         const PublishOptions &options = {}) {
  try_commit_batch(reservations, fields, options).value();
}

/** What to replay, and to whom: see tidewire_replay_options_t. */
struct ReplayOptions {
  std::string_view name{}, destination{}, one_off{}, bucket{};
  std::optional<Time> from{}, until{};
  const Filter *filter = nullptr;
  /** Events per second; 0 for as many as there are. */
  std::uint32_t rate_max = 0;

  tidewire_replay_options_t raw() const noexcept {
    tidewire_replay_options_t raw = TIDEWIRE_REPLAY_OPTIONS_INIT;
    raw.name = bytes(name);
    raw.destination = bytes(destination);
    raw.one_off = bytes(one_off);
    raw.bucket = bytes(bucket);
    if (from) raw.from_ns = detail::ns(*from);
    if (until) raw.until_ns = detail::ns(*until);
    if (filter) raw.filter = filter->get();
    raw.rate_max = rate_max;
    return raw;
  }
};

/** A replay, which goes on when this goes: see tidewire_replay_t. */
class Replay {
 public:
  explicit Replay(tidewire_replay_t *held) noexcept : held_(held) {}

  std::string json() const { return try_json().value(); }
  Expected<std::string> try_json() const {
    return detail::text([&](auto... out) { return tidewire_replay_json(get(), out...); });
  }
  void wait(Milliseconds timeout) const { try_wait(timeout).value(); }
  Expected<void> try_wait(Milliseconds timeout) const {
    return detail::call([&](auto error) { return tidewire_replay_wait(get(), detail::ms(timeout), error); });
  }
  void cancel() const { try_cancel().value(); }
  Expected<void> try_cancel() const {
    return detail::call([&](auto error) { return tidewire_replay_cancel(get(), error); });
  }

  const tidewire_replay_t *get() const noexcept { return held_.get(); }

 private:
  detail::Owned<tidewire_replay_t, tidewire_replay_free> held_;
};

/** Which events are read, and from where on: see tidewire_read_options_t. What is said to be for a group there is here, too. */
struct ReadOptions {
  tidewire_from_t from = TIDEWIRE_FROM_NOW;
  /** With TIDEWIRE_FROM_TIME. */
  std::optional<Time> time{};
  /** With TIDEWIRE_FROM_POSITION. */
  std::string_view position{};
  std::string_view bucket{};
  /** Names and wildcards, with spaces between. */
  std::string_view events{};
  const Filter *filter = nullptr;
  /** For a group; 0 means 16. */
  std::uint32_t deliveries_max = 0;
  /** For a member of a group; 0 means 30 s. */
  Milliseconds visibility_timeout{0};
  /** For a group; 0 means 1 GiB. */
  std::uint64_t lag_bytes_max = 0;
  /** For a group; 0 means 7 days. */
  Milliseconds lag_age_max{0};

  tidewire_read_options_t raw() const noexcept {
    tidewire_read_options_t raw = TIDEWIRE_READ_OPTIONS_INIT;
    raw.from = from;
    if (time) raw.from_ns = detail::ns(*time);
    raw.position = bytes(position);
    raw.bucket = bytes(bucket);
    raw.events = bytes(events);
    if (filter) raw.filter = filter->get();
    raw.deliveries_max = deliveries_max;
    raw.visibility_timeout_ms = detail::ms(visibility_timeout);
    raw.lag_bytes_max = lag_bytes_max;
    raw.lag_age_max_ms = detail::ms(lag_age_max);
    return raw;
  }
};

/** An event of the log, or a stretch of it that is missing: see tidewire_item_t. A view of the Items that it is one of. */
class Item {
 public:
  explicit Item(const tidewire_item_t &raw) noexcept : raw_(raw) {}

  /** Whether it is an event; otherwise something is missing, and `gap` tells why. */
  bool is_event() const noexcept { return raw_.event != nullptr; }
  /** Only if it is one. */
  Event event() const { return Event(*raw_.event); }
  tidewire_gap_t gap() const noexcept { return raw_.gap; }
  std::string_view id() const noexcept { return raw_.id; }
  std::uint32_t deliveries() const noexcept { return raw_.deliveries; }
  const tidewire_lease_t &lease() const noexcept { return raw_.lease; }
  /** The rest. */
  const tidewire_item_t &raw() const noexcept { return raw_; }

 private:
  tidewire_item_t raw_;
};

/** What was read: see tidewire_items_t. */
class Items {
 public:
  explicit Items(tidewire_items_t *held) noexcept : held_(held) {}

  std::size_t size() const noexcept { return tidewire_items_count(get()); }
  bool empty() const noexcept { return size() == 0; }
  /** One that there is none of is neither an event nor a gap. */
  Item operator[](std::size_t n) const noexcept {
    tidewire_item_t item = TIDEWIRE_ITEM_INIT;
    item.id = "";
    tidewire_items_get(get(), n, &item, nullptr);
    return Item(item);
  }

  class Iterator {
   public:
    Iterator(const Items &of, std::size_t n) noexcept : of_(&of), n_(n) {}
    Item operator*() const noexcept { return (*of_)[n_]; }
    Iterator &operator++() noexcept { return n_++, *this; }
    bool operator==(const Iterator &other) const noexcept { return n_ == other.n_; }
    bool operator!=(const Iterator &other) const noexcept { return n_ != other.n_; }

   private:
    const Items *of_;
    std::size_t n_;
  };
  Iterator begin() const noexcept { return Iterator(*this, 0); }
  Iterator end() const noexcept { return Iterator(*this, size()); }

  const tidewire_items_t *get() const noexcept { return held_.get(); }

 private:
  detail::Owned<tidewire_items_t, tidewire_items_free> held_;
};

/** @private */
namespace detail {
template <typename Function>
Expected<Items> items(Function &&function) {
  auto got = get<tidewire_items_t *>(std::forward<Function>(function));
  if (!got) return got.error();
  return Items(*got);
}
}  // namespace detail

/** The events of the log from some place on, and then each one as it is published: see tidewire_tail_t. */
class Tail {
 public:
  explicit Tail(tidewire_tail_t *held) noexcept : held_(held) {}

  /** Waits for the first one, and takes up to `max` that are there then. */
  Items next(std::size_t max, Milliseconds timeout) const { return try_next(max, timeout).value(); }
  Expected<Items> try_next(std::size_t max, Milliseconds timeout) const {
    return detail::items([&](auto... out) { return tidewire_tail_next(get(), max, detail::ms(timeout), out...); });
  }
  std::string position() const { return try_position().value(); }
  Expected<std::string> try_position() const {
    return detail::text([&](auto... out) { return tidewire_tail_position(get(), out...); });
  }

  const tidewire_tail_t *get() const noexcept { return held_.get(); }

 private:
  detail::Owned<tidewire_tail_t, tidewire_tail_free> held_;
};

/** A member of a group of consumers: see tidewire_consumer_t. When it goes, what it has goes out again at once. */
class Consumer {
 public:
  explicit Consumer(tidewire_consumer_t *held) noexcept : held_(held) {}

  Items fetch(std::size_t max, Milliseconds timeout) const { return try_fetch(max, timeout).value(); }
  Expected<Items> try_fetch(std::size_t max, Milliseconds timeout) const {
    return detail::items([&](auto... out) { return tidewire_consumer_fetch(get(), max, detail::ms(timeout), out...); });
  }
  void ack(const tidewire_lease_t &lease) const { try_ack(&lease, 1).value(); }
  void ack(const std::vector<tidewire_lease_t> &leases) const { try_ack(leases.data(), leases.size()).value(); }
  Expected<void> try_ack(const tidewire_lease_t *leases, std::size_t count) const {
    return detail::call([&](auto error) { return tidewire_consumer_ack(get(), leases, count, error); });
  }
  void nack(const tidewire_lease_t &lease, Milliseconds delay = {}) const { try_nack(lease, delay).value(); }
  Expected<void> try_nack(const tidewire_lease_t &lease, Milliseconds delay = {}) const {
    return detail::call([&](auto error) { return tidewire_consumer_nack(get(), &lease, detail::ms(delay), error); });
  }
  void extend(const tidewire_lease_t &lease) const { try_extend(lease).value(); }
  Expected<void> try_extend(const tidewire_lease_t &lease) const {
    return detail::call([&](auto error) { return tidewire_consumer_extend(get(), &lease, error); });
  }

  const tidewire_consumer_t *get() const noexcept { return held_.get(); }

 private:
  detail::Owned<tidewire_consumer_t, tidewire_consumer_free> held_;
};

/** How many dead letters were put back into the log, and how many were left. */
struct Redriven {
  std::uint64_t redriven, left;
};

/** An engine over one data directory, of this process or another one: see tidewire_engine_t. When it goes, it is closed with the time that the configuration
 * gives; `close` tells how that went. */
class Engine {
 public:
  explicit Engine(const Options &options) : Engine(try_open(options).value()) {}
  static Expected<Engine> try_open(const Options &options) {
    tidewire_options_t raw = options.raw();
    using Clock = std::function<Time()>;
    auto clock = options.clock ? std::make_unique<Clock>(options.clock) : nullptr;
    if (clock) {
      raw.clock = [](void *data) {
        Time now = std::chrono::system_clock::now();
        auto ask = [&] { now = (*static_cast<Clock *>(data))(); };
        detail::Guarded<decltype(ask)> guarded(ask);
        guarded();
        return detail::ns(now);
      };
      raw.clock_data = clock.get();
      raw.clock_release = [](void *data) { delete static_cast<Clock *>(data); };
    }
    auto got = detail::get<tidewire_engine_t *>([&](auto... out) { return tidewire_open(&raw, out...); });
    if (!got) return got.error();
    static_cast<void>(clock.release());
    return Engine(*got);
  }

  /** Closes it, with the time that the configuration gives or this one. No other call may be running or follow. */
  void close(std::optional<Milliseconds> timeout = {}) { try_close(timeout).value(); }
  Expected<void> try_close(std::optional<Milliseconds> timeout = {}) {
    const std::uint64_t ms = timeout ? detail::ms(*timeout) : TIDEWIRE_TIMEOUT_CONFIGURED;
    return detail::call([&](auto error) { return tidewire_close(held_.address(), ms, error); });
  }
  void flush(Milliseconds timeout) const { try_flush(timeout).value(); }
  Expected<void> try_flush(Milliseconds timeout) const {
    return detail::call([&](auto error) { return tidewire_flush(get(), detail::ms(timeout), error); });
  }

  /* --- Publishing */

  tidewire_outcome_t publish(const Event &event, const PublishOptions &options = {}) const {
    return try_publish(event, options).value();
  }
  /** After TIDEWIRE_TIMEOUT the event is on its way all the same. */
  Expected<tidewire_outcome_t> try_publish(const Event &event, const PublishOptions &options = {}) const {
    const tidewire_event_t e = event.raw();
    const tidewire_publish_options_t o = options.raw();
    return detail::get<tidewire_outcome_t>([&](auto... out) { return tidewire_publish(get(), &e, &o, out...); });
  }
  /** If one is refused, `outcomes` of the other form tells what became of the others. */
  std::vector<tidewire_outcome_t> publish_batch(const std::vector<Event> &events, const PublishOptions &options = {}) const {
    std::vector<tidewire_outcome_t> outcomes;
    try_publish_batch(events, outcomes, options).value();
    return outcomes;
  }
  Expected<void> try_publish_batch(const std::vector<Event> &events, std::vector<tidewire_outcome_t> &outcomes,
                                   const PublishOptions &options = {}) const {
    std::vector<tidewire_event_t> raw;
    for (const Event &event : events) raw.push_back(event.raw());
    outcomes.assign(events.size(), TIDEWIRE_OUTCOME_REFUSED);
    const tidewire_publish_options_t o = options.raw();
    return detail::call([&](auto error) {
      return tidewire_publish_batch(get(), raw.data(), raw.size(), &o, outcomes.data(), error);
    });
  }
  /** What became of the events of a document: see tidewire_publish_json. */
  tidewire_published_t publish_json(std::string_view json, std::string_view content_type = {},
                                    const PublishOptions &options = {}) const {
    tidewire_published_t published = TIDEWIRE_PUBLISHED_INIT;
    try_publish_json(json, published, content_type, options).value();
    return published;
  }
  Expected<void> try_publish_json(std::string_view json, tidewire_published_t &published, std::string_view content_type = {},
                                  const PublishOptions &options = {}) const {
    const tidewire_publish_options_t o = options.raw();
    return detail::call([&](auto error) {
      return tidewire_publish_json(get(), bytes(json), bytes(content_type), &o, &published, error);
    });
  }
  tidewire_outcome_t submit(const Event &event, const Completions &completions, std::uint64_t user_data,
                            const PublishOptions &options = {}) const {
    return try_submit(event, completions, user_data, options).value();
  }
  Expected<tidewire_outcome_t> try_submit(const Event &event, const Completions &completions, std::uint64_t user_data,
                                          const PublishOptions &options = {}) const {
    const tidewire_event_t e = event.raw();
    const tidewire_publish_options_t o = options.raw();
    return detail::get<tidewire_outcome_t>(
        [&](auto... out) { return tidewire_submit(get(), &e, &o, completions.get(), user_data, out...); });
  }
  tidewire_outcome_t append_at(std::uint64_t cursor, const Event &event, const PublishOptions &options = {}) const {
    return try_append_at(cursor, event, options).value();
  }
  Expected<tidewire_outcome_t> try_append_at(std::uint64_t cursor, const Event &event,
                                             const PublishOptions &options = {}) const {
    const tidewire_event_t e = event.raw();
    const tidewire_publish_options_t o = options.raw();
    return detail::get<tidewire_outcome_t>([&](auto... out) { return tidewire_append_at(get(), cursor, &e, &o, out...); });
  }
  std::uint64_t last_applied() const { return try_last_applied().value(); }
  Expected<std::uint64_t> try_last_applied() const {
    return detail::get<std::uint64_t>([&](auto... out) { return tidewire_last_applied(get(), out...); });
  }
  bool is_interested(const Event &event) const noexcept {
    const tidewire_event_t raw = event.raw();
    return tidewire_is_interested(get(), &raw);
  }

  /* --- Reservations */

  Reservation reserve(const Event &event, const ReserveOptions &options = {}) const {
    return try_reserve(event, options).value();
  }
  Expected<Reservation> try_reserve(const Event &event, const ReserveOptions &options = {}) const {
    const tidewire_event_t e = event.raw();
    const tidewire_reserve_options_t o = options.raw();
    auto got = detail::get<tidewire_reservation_t *>([&](auto... out) { return tidewire_reserve(get(), &e, &o, out...); });
    if (!got) return got.error();
    return Reservation(*got);
  }
  std::vector<Reservation> reserve_batch(const std::vector<Event> &events, const ReserveOptions &options = {}) const {
    return try_reserve_batch(events, options).value();
  }
  Expected<std::vector<Reservation>> try_reserve_batch(const std::vector<Event> &events,
                                                       const ReserveOptions &options = {}) const {
    std::vector<tidewire_event_t> raw;
    for (const Event &event : events) raw.push_back(event.raw());
    std::vector<tidewire_reservation_t *> held(events.size());
    const tidewire_reserve_options_t o = options.raw();
    auto done = detail::call(
        [&](auto error) { return tidewire_reserve_batch(get(), raw.data(), raw.size(), &o, held.data(), error); });
    if (!done) return done.error();
    std::vector<Reservation> reservations;
    reservations.reserve(held.size());
    for (tidewire_reservation_t *one : held) reservations.emplace_back(one);
    return reservations;
  }
  /** Calls `each(token, reserved, event)` with a std::string_view, a Time and an Event. */
  template <typename Each>
  void in_doubt(Each &&each) const {
    try_in_doubt(std::forward<Each>(each)).value();
  }
  template <typename Each>
  Expected<void> try_in_doubt(Each &&each) const {
    auto act = [&](const char *token, std::uint64_t ns, const tidewire_event_t *event) {
      each(std::string_view(token), detail::time(ns), Event(*event));
    };
    detail::Guarded<decltype(act)> guarded(act);
    const tidewire_in_doubt_callback_t callback = [](void *data, const char *token, std::uint64_t ns,
                                                     const tidewire_event_t *event) {
      (*static_cast<decltype(guarded) *>(data))(token, ns, event);
    };
    auto done = detail::call([&](auto error) { return tidewire_in_doubt(get(), callback, &guarded, error); });
    guarded.rethrow();
    return done;
  }
  void resolve_commit(std::string_view token, const Event &event) const { try_resolve_commit(token, event).value(); }
  Expected<void> try_resolve_commit(std::string_view token, const Event &event) const {
    const tidewire_event_t raw = event.raw();
    return detail::call([&](auto error) { return tidewire_resolve_commit(get(), bytes(token), &raw, error); });
  }
  void resolve_abort(std::string_view token) const { try_resolve_abort(token).value(); }
  Expected<void> try_resolve_abort(std::string_view token) const {
    return detail::call([&](auto error) { return tidewire_resolve_abort(get(), bytes(token), error); });
  }

  /* --- Rules */

  /** Answers the rule's new version. */
  std::uint64_t put_rule(std::string_view rule, std::uint64_t expect = TIDEWIRE_EXPECT_ANYTHING) const {
    return try_put_rule(rule, expect).value();
  }
  Expected<std::uint64_t> try_put_rule(std::string_view rule, std::uint64_t expect = TIDEWIRE_EXPECT_ANYTHING) const {
    return detail::get<std::uint64_t>([&](auto... out) { return tidewire_rule_put(get(), bytes(rule), expect, out...); });
  }
  void delete_rule(std::string_view bucket, std::string_view id, std::uint64_t expect = TIDEWIRE_EXPECT_ANYTHING) const {
    try_delete_rule(bucket, id, expect).value();
  }
  Expected<void> try_delete_rule(std::string_view bucket, std::string_view id,
                                 std::uint64_t expect = TIDEWIRE_EXPECT_ANYTHING) const {
    return detail::call([&](auto error) { return tidewire_rule_delete(get(), bytes(bucket), bytes(id), expect, error); });
  }
  std::string rule_json(std::string_view bucket, std::string_view id) const { return try_rule_json(bucket, id).value(); }
  Expected<std::string> try_rule_json(std::string_view bucket, std::string_view id) const {
    return detail::text([&](auto... out) { return tidewire_rule_json(get(), bytes(bucket), bytes(id), out...); });
  }
  std::string rules_json() const { return try_rules_json().value(); }
  Expected<std::string> try_rules_json() const {
    return detail::text([&](auto... out) { return tidewire_rules_json(get(), out...); });
  }

  /* --- Notification documents of S3 */

  /** Answers the version of the bucket's rules. `options` may be nullptr. */
  std::uint64_t put_bucket_notification(std::string_view bucket, std::string_view document,
                                 std::uint64_t expect = TIDEWIRE_EXPECT_ANYTHING,
                                 const tidewire_notification_options_t *options = nullptr) const {
    return try_put_bucket_notification(bucket, document, expect, options).value();
  }
  Expected<std::uint64_t> try_put_bucket_notification(std::string_view bucket, std::string_view document,
                                               std::uint64_t expect = TIDEWIRE_EXPECT_ANYTHING,
                                               const tidewire_notification_options_t *options = nullptr) const {
    return detail::get<std::uint64_t>([&](auto... out) {
      return tidewire_bucket_notification_put(get(), bytes(bucket), bytes(document), options, expect, out...);
    });
  }
  /** Changes nothing. */
  void check_bucket_notification(std::string_view bucket, std::string_view document,
                          const tidewire_notification_options_t *options = nullptr) const {
    try_check_bucket_notification(bucket, document, options).value();
  }
  Expected<void> try_check_bucket_notification(std::string_view bucket, std::string_view document,
                                        const tidewire_notification_options_t *options = nullptr) const {
    return detail::call([&](auto error) {
      return tidewire_bucket_notification_check(get(), bytes(bucket), bytes(document), options, error);
    });
  }
  /** `version` is set to the version of the bucket's rules, and `left_out` to how many no document can say, unless they are
   * nullptr. */
  std::string bucket_notification(std::string_view bucket, tidewire_notification_format_t format = TIDEWIRE_NOTIFICATION_XML,
                           std::uint64_t *version = nullptr, std::size_t *left_out = nullptr) const {
    return try_bucket_notification(bucket, format, version, left_out).value();
  }
  Expected<std::string> try_bucket_notification(std::string_view bucket,
                                         tidewire_notification_format_t format = TIDEWIRE_NOTIFICATION_XML,
                                         std::uint64_t *version = nullptr, std::size_t *left_out = nullptr) const {
    return detail::text([&](char **text, std::size_t *len, tidewire_error_t **error) {
      return tidewire_bucket_notification_get(get(), bytes(bucket), format, text, len, version, left_out, error);
    });
  }

  /* --- Destinations */

  /** Answers the destination's new version. */
  /** Which details of an event are of use, as a sum of TIDEWIRE_DETAILS_: see tidewire_details_wanted. */
  tidewire_details_wanted_t details_wanted(const Event &event) const noexcept {
    const tidewire_event_t raw = event.raw();
    return tidewire_details_wanted(get(), &raw);
  }

  /** Sets what serves the destinations with `type = "custom"` of this name; takes it away if it is empty. See
   * tidewire_handler_set. */
  void set_handler(std::string_view name, Handler handler) const { try_set_handler(name, std::move(handler)).value(); }
  Expected<void> try_set_handler(std::string_view name, Handler handler) const {
    if (!handler)
      return detail::call([&](auto error) { return tidewire_handler_set(get(), bytes(name), nullptr, error); });
    auto held = std::make_unique<Handler>(std::move(handler));
    tidewire_handler_t raw = TIDEWIRE_HANDLER_INIT;
    raw.callback = [](void *data, tidewire_batch_t *batch) {
      detail::Guarded<Handler> guarded(*static_cast<Handler *>(data));
      guarded(Batch(batch));
    };
    raw.callback_data = held.get();
    raw.release = [](void *data) { delete static_cast<Handler *>(data); };
    auto done = detail::call([&](auto error) { return tidewire_handler_set(get(), bytes(name), &raw, error); });
    if (done) static_cast<void>(held.release());
    return done;
  }

  /** Sets what adds metadata, tags and data to events before they are matched; takes it away if it is empty. See
   * tidewire_enricher_set. */
  void set_enricher(Enricher enricher, const EnrichOptions &options = {}) const {
    try_set_enricher(std::move(enricher), options).value();
  }
  Expected<void> try_set_enricher(Enricher enricher, const EnrichOptions &options = {}) const {
    if (!enricher) return detail::call([&](auto error) { return tidewire_enricher_set(get(), nullptr, error); });
    auto held = std::make_unique<Enricher>(std::move(enricher));
    const auto pairs = [](const auto &from) {
      std::vector<tidewire_pair_t> raw;
      for (const auto &[name, value] : from) raw.push_back({bytes(name), bytes(value)});
      return raw;
    };
    const auto metadata = pairs(options.fallback_metadata), tags = pairs(options.fallback_tags);
    tidewire_enricher_t raw = TIDEWIRE_ENRICHER_INIT;
    raw.callback = [](void *data, const tidewire_event_t *event, tidewire_enrichment_t *enrichment) {
      Enrichment added(enrichment);
      const Event seen(*event);
      detail::Guarded<Enricher> guarded(*static_cast<Enricher *>(data));
      if (!guarded(seen, added)) added.fail("the function has thrown an exception");
    };
    raw.callback_data = held.get();
    raw.release = [](void *data) { delete static_cast<Enricher *>(data); };
    raw.timeout_ms = detail::ms(options.timeout);
    raw.fallback_metadata = metadata.data();
    raw.fallback_metadata_count = metadata.size();
    raw.fallback_tags = tags.data();
    raw.fallback_tags_count = tags.size();
    auto done = detail::call([&](auto error) { return tidewire_enricher_set(get(), &raw, error); });
    if (done) static_cast<void>(held.release());
    return done;
  }

  std::uint64_t put_destination(std::string_view destination, std::uint64_t expect = TIDEWIRE_EXPECT_ANYTHING,
                                tidewire_backlog_t waiting = TIDEWIRE_BACKLOG_KEEP, std::string_view move_to = {}) const {
    return try_put_destination(destination, expect, waiting, move_to).value();
  }
  Expected<std::uint64_t> try_put_destination(std::string_view destination, std::uint64_t expect = TIDEWIRE_EXPECT_ANYTHING,
                                              tidewire_backlog_t waiting = TIDEWIRE_BACKLOG_KEEP,
                                              std::string_view move_to = {}) const {
    return detail::get<std::uint64_t>([&](auto... out) {
      return tidewire_destination_put(get(), bytes(destination), expect, waiting, bytes(move_to), out...);
    });
  }
  void delete_destination(std::string_view name, std::uint64_t expect = TIDEWIRE_EXPECT_ANYTHING,
                          tidewire_backlog_t waiting = TIDEWIRE_BACKLOG_KEEP, std::string_view move_to = {}) const {
    try_delete_destination(name, expect, waiting, move_to).value();
  }
  Expected<void> try_delete_destination(std::string_view name, std::uint64_t expect = TIDEWIRE_EXPECT_ANYTHING,
                                        tidewire_backlog_t waiting = TIDEWIRE_BACKLOG_KEEP,
                                        std::string_view move_to = {}) const {
    return detail::call([&](auto error) {
      return tidewire_destination_delete(get(), bytes(name), expect, waiting, bytes(move_to), error);
    });
  }
  void suspend_destination(std::string_view name) const { try_suspend_destination(name).value(); }
  Expected<void> try_suspend_destination(std::string_view name) const {
    return detail::call([&](auto error) { return tidewire_destination_suspend(get(), bytes(name), error); });
  }
  void resume_destination(std::string_view name) const { try_resume_destination(name).value(); }
  Expected<void> try_resume_destination(std::string_view name) const {
    return detail::call([&](auto error) { return tidewire_destination_resume(get(), bytes(name), error); });
  }
  void confirm_destination(std::string_view name, std::uint32_t per_minute = 0) const {
    try_confirm_destination(name, per_minute).value();
  }
  Expected<void> try_confirm_destination(std::string_view name, std::uint32_t per_minute = 0) const {
    return detail::call([&](auto error) { return tidewire_destination_confirm(get(), bytes(name), per_minute, error); });
  }
  std::string destination_json(std::string_view name) const { return try_destination_json(name).value(); }
  Expected<std::string> try_destination_json(std::string_view name) const {
    return detail::text([&](auto... out) { return tidewire_destination_json(get(), bytes(name), out...); });
  }
  std::string destinations_json() const { return try_destinations_json().value(); }
  Expected<std::string> try_destinations_json() const {
    return detail::text([&](auto... out) { return tidewire_destinations_json(get(), out...); });
  }
  std::string test_destination(std::string_view name) const { return try_test_destination(name).value(); }
  Expected<std::string> try_test_destination(std::string_view name) const {
    return detail::text([&](auto... out) { return tidewire_destination_test(get(), bytes(name), out...); });
  }
  /** Answers the new secret. */
  std::string rotate_secret(std::string_view name, std::string_view secret = {}, Milliseconds overlap = {}) const {
    return try_rotate_secret(name, secret, overlap).value();
  }
  Expected<std::string> try_rotate_secret(std::string_view name, std::string_view secret = {},
                                          Milliseconds overlap = {}) const {
    return detail::text([&](auto... out) {
      return tidewire_destination_rotate_secret(get(), bytes(name), bytes(secret), detail::ms(overlap), out...);
    });
  }

  /* --- Dead letters and replays */

  /** Calls `each(std::string_view)` with the lines, in pieces of any length. Answers how many letters there are. */
  template <typename Each>
  std::uint64_t export_dead_letters(Each &&each, const DeadLetterFilter &filter = {}) const {
    return try_export_dead_letters(std::forward<Each>(each), filter).value();
  }
  template <typename Each>
  Expected<std::uint64_t> try_export_dead_letters(Each &&each, const DeadLetterFilter &filter = {}) const {
    auto act = [&](const std::uint8_t *data, std::size_t len) { each(view(tidewire_bytes(data, len))); };
    detail::Guarded<decltype(act)> guarded(act);
    const tidewire_write_callback_t callback = [](void *data, const std::uint8_t *piece, std::size_t len) {
      return (*static_cast<decltype(guarded) *>(data))(piece, len) ? 0 : 1;
    };
    const tidewire_dead_letter_filter_t raw = filter.raw();
    auto count = detail::get<std::uint64_t>(
        [&](auto... out) { return tidewire_dead_letters_export(get(), &raw, callback, &guarded, out...); });
    guarded.rethrow();
    return count;
  }
  Redriven redrive_dead_letters(Milliseconds timeout, const DeadLetterFilter &filter = {}, std::string_view to = {},
                                std::uint32_t per_second = 0) const {
    Redriven out{};
    try_redrive_dead_letters(out, timeout, filter, to, per_second).value();
    return out;
  }
  /** `out` tells how far it came, also after TIDEWIRE_TIMEOUT. */
  Expected<void> try_redrive_dead_letters(Redriven &out, Milliseconds timeout, const DeadLetterFilter &filter = {},
                                          std::string_view to = {}, std::uint32_t per_second = 0) const {
    const tidewire_dead_letter_filter_t raw = filter.raw();
    return detail::call([&](auto error) {
      return tidewire_dead_letters_redrive(get(), &raw, bytes(to), per_second, detail::ms(timeout), &out.redriven, &out.left,
                                           error);
    });
  }
  std::uint64_t purge_dead_letters(Milliseconds timeout, const DeadLetterFilter &filter = {}) const {
    return try_purge_dead_letters(timeout, filter).value();
  }
  Expected<std::uint64_t> try_purge_dead_letters(Milliseconds timeout, const DeadLetterFilter &filter = {}) const {
    const tidewire_dead_letter_filter_t raw = filter.raw();
    return detail::get<std::uint64_t>(
        [&](auto... out) { return tidewire_dead_letters_purge(get(), &raw, detail::ms(timeout), out...); });
  }
  Replay start_replay(const ReplayOptions &options) const { return try_start_replay(options).value(); }
  Expected<Replay> try_start_replay(const ReplayOptions &options) const {
    const tidewire_replay_options_t raw = options.raw();
    return replay([&](auto... out) { return tidewire_replay_start(get(), &raw, out...); });
  }
  Replay find_replay(std::string_view name) const { return try_find_replay(name).value(); }
  Expected<Replay> try_find_replay(std::string_view name) const {
    return replay([&](auto... out) { return tidewire_replay_find(get(), bytes(name), out...); });
  }
  void resume_replay(std::string_view name, std::string_view destination) const {
    try_resume_replay(name, destination).value();
  }
  Expected<void> try_resume_replay(std::string_view name, std::string_view destination) const {
    return detail::call([&](auto error) { return tidewire_replay_resume(get(), bytes(name), bytes(destination), error); });
  }
  std::string replays_json() const { return try_replays_json().value(); }
  Expected<std::string> try_replays_json() const {
    return detail::text([&](auto... out) { return tidewire_replays_json(get(), out...); });
  }

  /* --- Reading the log */

  Tail tail(const ReadOptions &options = {}) const { return try_tail(options).value(); }
  Expected<Tail> try_tail(const ReadOptions &options = {}) const {
    const tidewire_read_options_t raw = options.raw();
    auto got = detail::get<tidewire_tail_t *>([&](auto... out) { return tidewire_tail_open(get(), &raw, out...); });
    if (!got) return got.error();
    return Tail(*got);
  }
  Consumer consumer(std::string_view group, const ReadOptions &options = {}) const {
    return try_consumer(group, options).value();
  }
  Expected<Consumer> try_consumer(std::string_view group, const ReadOptions &options = {}) const {
    const tidewire_read_options_t raw = options.raw();
    auto got = detail::get<tidewire_consumer_t *>(
        [&](auto... out) { return tidewire_consumer_open(get(), bytes(group), &raw, out...); });
    if (!got) return got.error();
    return Consumer(*got);
  }
  void delete_group(std::string_view group) const { try_delete_group(group).value(); }
  Expected<void> try_delete_group(std::string_view group) const {
    return detail::call([&](auto error) { return tidewire_group_delete(get(), bytes(group), error); });
  }
  std::string groups_json() const { return try_groups_json().value(); }
  Expected<std::string> try_groups_json() const {
    return detail::text([&](auto... out) { return tidewire_groups_json(get(), out...); });
  }

  /* --- What it has counted */

  tidewire_stats_t stats() const { return try_stats().value(); }
  Expected<tidewire_stats_t> try_stats() const {
    tidewire_stats_t stats = TIDEWIRE_STATS_INIT;
    auto done = detail::call([&](auto error) { return tidewire_stats(get(), &stats, error); });
    if (!done) return done.error();
    return stats;
  }
  std::string stats_json() const { return try_stats_json().value(); }
  Expected<std::string> try_stats_json() const {
    return detail::text([&](auto... out) { return tidewire_stats_json(get(), out...); });
  }
  /** As a text that Prometheus scrapes. */
  std::string prometheus(tidewire_metrics_format_t format = TIDEWIRE_METRICS_PROMETHEUS) const {
    return try_prometheus(format).value();
  }
  Expected<std::string> try_prometheus(tidewire_metrics_format_t format = TIDEWIRE_METRICS_PROMETHEUS) const {
    return detail::text([&](auto... out) { return tidewire_prometheus(get(), format, out...); });
  }

  /** For the functions of tidewire.h; nullptr once it is closed. */
  const tidewire_engine_t *get() const noexcept { return held_.get(); }

 private:
  explicit Engine(tidewire_engine_t *held) noexcept : held_(held) {}

  template <typename Function>
  static Expected<Replay> replay(Function &&function) {
    auto got = detail::get<tidewire_replay_t *>(std::forward<Function>(function));
    if (!got) return got.error();
    return Replay(*got);
  }

  detail::Owned<tidewire_engine_t, detail::close> held_;
};

inline Expected<Completions> Completions::try_open(const Engine &engine, Callback callback) {
  tidewire_completions_options_t options = TIDEWIRE_COMPLETIONS_OPTIONS_INIT;
  std::unique_ptr<Called> called;
  if (callback) {
    called = std::make_unique<Called>();
    called->callback = std::move(callback);
    options.callback = call;
    options.callback_data = called.get();
  }
  auto got = detail::get<tidewire_completions_t *>(
      [&](auto... out) { return tidewire_completions_open(engine.get(), &options, out...); });
  if (!got) return got.error();
  return Completions(*got, std::move(called));
}

/** Gets the messages of the library: how important one is, the part of the library that it is from, and the message. What it
 * throws is dropped. */
using LogCallback = std::function<void(tidewire_log_level_t level, std::string_view target, std::string_view message)>;

/** Has the messages of the library told to a function, in the place of an earlier one; to none if it is empty. See
 * tidewire_log_to. */
inline Expected<void> try_log_to(LogCallback callback, tidewire_log_level_t level = TIDEWIRE_LOG_INFO) {
  static std::mutex mutex;
  static std::unique_ptr<LogCallback> current;
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<LogCallback> next = callback ? std::make_unique<LogCallback>(std::move(callback)) : nullptr;
  const tidewire_log_callback_t call = [](void *data, tidewire_log_level_t of, const char *target, const char *message) {
    detail::Guarded<LogCallback> guarded(*static_cast<LogCallback *>(data));
    guarded(of, std::string_view(target), std::string_view(message));
  };
  auto done = detail::call([&](auto error) { return tidewire_log_to(next ? call : nullptr, next.get(), level, error); });
  // The one before is not called any more.
  if (done) current = std::move(next);
  return done;
}
inline void log_to(LogCallback callback, tidewire_log_level_t level = TIDEWIRE_LOG_INFO) {
  try_log_to(std::move(callback), level).value();
}

/** Checks a configuration without opening or changing anything. */
inline Expected<void> try_validate(const Options &options) {
  const tidewire_options_t raw = options.raw();
  return detail::call([&](auto error) { return tidewire_validate(&raw, error); });
}
inline void validate(const Options &options) { try_validate(options).value(); }

/** What is suspicious about the rules of a configuration, as a JSON list: see tidewire_lint. */
inline Expected<std::string> try_lint(std::string_view config) {
  return detail::text([&](auto... out) { return tidewire_lint(bytes(config), out...); });
}
inline std::string lint(std::string_view config) { return try_lint(config).value(); }

/** The JSON Schema of filters in the native form. */
inline std::string_view filter_schema() noexcept { return tidewire_filter_schema(); }

/** The version of the library in use. */
inline std::string_view version() noexcept { return tidewire_version(); }

}  // namespace tidewire

#endif /* TIDEWIRE_HPP */
