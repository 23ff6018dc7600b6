// Tidewire in the place of the notifications of the RADOS gateway: what its store (`Store::get_notification`) would give to an
// operation. `publish_reserve` holds space and may refuse; `publish_commit` is called when the operation has succeeded, and
// is not refused for want of space; `publish_abort`, or the end of the object without a commit, tells nothing.
//
// In the gateway, include rgw_sal.h where this includes interface.hpp.
#pragma once

#include <cerrno>
#include <tidewire.hpp>

#include "interface.hpp"

namespace rgw::sal {

// What the gateway knows of a request (`req_state`), or of what it does by itself.
struct TidewireRequest {
  std::string user_id{};
  std::string request_id{};
  std::string host_id{};
  std::string source_ip{};
  std::string user_agent{};
  const meta_map_t *metadata = nullptr;  // x-amz-meta-*, names with that prefix
};

class TidewireNotification final : public Notification {
 public:
  TidewireNotification(const tidewire::Engine &engine, Object *object, Object *source, rgw::notify::EventType type,
                       TidewireRequest request)
      : Notification(object, source, type), engine_(engine), request_(std::move(request)) {}

  int publish_reserve(const DoutPrefixProvider *, RGWObjTags *tags = nullptr) override {
    tidewire::Event event(name_of(event_type), bucket_of(*obj), obj->get_name());
    event.requester(request_.user_id)
        .request_id(request_.request_id)
        .host_id(request_.host_id)
        .source_ip(request_.source_ip)
        .user_agent(request_.user_agent)
        .bucket_owner(obj->get_bucket()->get_owner())
        .origin(origin_of(event_type));
    if (request_.metadata) {
      for (const auto &[name, value] : *request_.metadata) event.metadata(without_prefix(name), value);
    }
    if (tags) {
      for (const auto &[name, value] : tags->get_tags()) event.tag(name, value);
    }
    auto reserved = engine_.try_reserve(event);
    if (!reserved) return errno_of(reserved.error());
    reservation_ = std::move(*reserved);
    return 0;
  }

  int publish_commit(const DoutPrefixProvider *, std::uint64_t size, const ceph::real_time &mtime, const std::string &etag,
                     const std::string &version) override {
    tidewire::Commit fields;
    // The time of the object; of what is removed the gateway gives the time of the removal.
    fields.time(std::chrono::time_point_cast<tidewire::Time::duration>(mtime)).etag(unquoted(etag)).version_id(version);
    if (!is_removal(event_type)) fields.size(size);
    // It returns when the event is durable; many operations share one sync.
    const auto done = reservation_.try_commit(fields);
    return done ? 0 : errno_of(done.error());
  }

  // What happens anyway when the object goes, for who wants to know that it did.
  int publish_abort(const DoutPrefixProvider *) {
    const auto done = reservation_.try_abort();
    return done ? 0 : errno_of(done.error());
  }

 private:
  static tidewire_event_type_t name_of(rgw::notify::EventType type) {
    switch (type) {
      case rgw::notify::ObjectCreatedPut: return TIDEWIRE_EVENT_OBJECT_CREATED_PUT;
      case rgw::notify::ObjectCreatedPost: return TIDEWIRE_EVENT_OBJECT_CREATED_POST;
      case rgw::notify::ObjectCreatedCopy: return TIDEWIRE_EVENT_OBJECT_CREATED_COPY;
      case rgw::notify::ObjectCreatedCompleteMultipartUpload:
        return TIDEWIRE_EVENT_OBJECT_CREATED_COMPLETE_MULTIPART_UPLOAD;
      case rgw::notify::ObjectRemovedDelete: return TIDEWIRE_EVENT_OBJECT_REMOVED_DELETE;
      case rgw::notify::ObjectRemovedDeleteMarkerCreated: return TIDEWIRE_EVENT_OBJECT_REMOVED_DELETE_MARKER_CREATED;
      case rgw::notify::ObjectExpirationCurrent: return TIDEWIRE_EVENT_LIFECYCLE_EXPIRATION_DELETE;
      case rgw::notify::ObjectExpirationDeleteMarker: return TIDEWIRE_EVENT_LIFECYCLE_EXPIRATION_DELETE_MARKER_CREATED;
      case rgw::notify::ObjectExpirationAbortMPU: return TIDEWIRE_EVENT_LIFECYCLE_EXPIRATION_ABORT_MULTIPART_UPLOAD;
      case rgw::notify::ObjectTransitionCurrent: return TIDEWIRE_EVENT_LIFECYCLE_TRANSITION;
      case rgw::notify::ObjectSyncedCreate: return TIDEWIRE_EVENT_REPLICA_CREATED;
      case rgw::notify::ObjectSyncedDelete: return TIDEWIRE_EVENT_REPLICA_DELETED;
    }
    return TIDEWIRE_EVENT_NAMED;  // without a name: the reservation says that it is no type
  }

  static tidewire_origin_t origin_of(rgw::notify::EventType type) {
    switch (type) {
      case rgw::notify::ObjectExpirationCurrent:
      case rgw::notify::ObjectExpirationDeleteMarker:
      case rgw::notify::ObjectExpirationAbortMPU:
      case rgw::notify::ObjectTransitionCurrent: return TIDEWIRE_ORIGIN_LIFECYCLE;
      case rgw::notify::ObjectSyncedCreate:
      case rgw::notify::ObjectSyncedDelete: return TIDEWIRE_ORIGIN_REPLICA;
      default: return TIDEWIRE_ORIGIN_USER;
    }
  }

  static bool is_removal(rgw::notify::EventType type) {
    return type == rgw::notify::ObjectRemovedDelete || type == rgw::notify::ObjectRemovedDeleteMarkerCreated ||
           type == rgw::notify::ObjectExpirationCurrent || type == rgw::notify::ObjectExpirationDeleteMarker ||
           type == rgw::notify::ObjectExpirationAbortMPU || type == rgw::notify::ObjectSyncedDelete;
  }

  // Buckets of tenants may have one name; rules name them as the gateway writes them.
  static std::string bucket_of(const Object &object) {
    const Bucket &bucket = *object.get_bucket();
    return bucket.get_tenant().empty() ? bucket.get_name() : bucket.get_tenant() + ":" + bucket.get_name();
  }

  static std::string_view without_prefix(std::string_view name) {
    constexpr std::string_view prefix = "x-amz-meta-";
    return name.substr(0, prefix.size()) == prefix ? name.substr(prefix.size()) : name;
  }

  static std::string_view unquoted(std::string_view etag) {
    return etag.size() >= 2 && etag.front() == '"' && etag.back() == '"' ? etag.substr(1, etag.size() - 2) : etag;
  }

  static int errno_of(const tidewire::Error &error) {
    switch (error.code()) {
      case TIDEWIRE_FULL: return -EBUSY;  // 503 SlowDown
      case TIDEWIRE_INVALID_EVENT:
      case TIDEWIRE_INVALID_ARGUMENT: return -EINVAL;
      case TIDEWIRE_TIMEOUT: return -ETIMEDOUT;
      case TIDEWIRE_CLOSED: return -ESHUTDOWN;
      default: return -EIO;
    }
  }

  const tidewire::Engine &engine_;
  const TidewireRequest request_;
  tidewire::Reservation reservation_;
};

}  // namespace rgw::sal
