// The shape of what the RADOS gateway gives and asks of a notification, without anything of Ceph: just so much that
// notification.hpp compiles by itself. In the gateway these come from rgw_sal.h and rgw_notify_event_type.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>

struct DoutPrefixProvider;  // where the gateway logs to

namespace ceph {
using real_time = std::chrono::time_point<std::chrono::system_clock, std::chrono::nanoseconds>;
}

using meta_map_t = std::map<std::string, std::string>;

class RGWObjTags {
 public:
  using tag_map_t = std::multimap<std::string, std::string>;
  const tag_map_t &get_tags() const { return tags_; }
  void add_tag(const std::string &key, const std::string &value) { tags_.emplace(key, value); }

 private:
  tag_map_t tags_;
};

namespace rgw::notify {

enum EventType {
  ObjectCreatedPut,
  ObjectCreatedPost,
  ObjectCreatedCopy,
  ObjectCreatedCompleteMultipartUpload,
  ObjectRemovedDelete,
  ObjectRemovedDeleteMarkerCreated,
  ObjectExpirationCurrent,
  ObjectExpirationDeleteMarker,
  ObjectExpirationAbortMPU,
  ObjectTransitionCurrent,
  ObjectSyncedCreate,
  ObjectSyncedDelete,
};

}  // namespace rgw::notify

namespace rgw::sal {

class Bucket {
 public:
  explicit Bucket(std::string name, std::string tenant = "", std::string owner = "")
      : name_(std::move(name)), tenant_(std::move(tenant)), owner_(std::move(owner)) {}
  const std::string &get_name() const { return name_; }
  const std::string &get_tenant() const { return tenant_; }
  const std::string &get_owner() const { return owner_; }

 private:
  std::string name_, tenant_, owner_;
};

class Object {
 public:
  Object(Bucket *bucket, std::string name) : bucket_(bucket), name_(std::move(name)) {}
  Bucket *get_bucket() const { return bucket_; }
  const std::string &get_name() const { return name_; }

 private:
  Bucket *bucket_;
  std::string name_;
};

// An operation of the gateway makes one of these, reserves before it begins, and commits when it has succeeded. One that is
// only destroyed has reserved for nothing.
class Notification {
 public:
  Notification(Object *object, Object *source, rgw::notify::EventType type) : obj(object), src_obj(source), event_type(type) {}
  virtual ~Notification() = default;

  // 0, or an errno with its sign turned round: then the operation is refused.
  virtual int publish_reserve(const DoutPrefixProvider *dpp, RGWObjTags *tags = nullptr) = 0;
  virtual int publish_commit(const DoutPrefixProvider *dpp, std::uint64_t size, const ceph::real_time &mtime,
                             const std::string &etag, const std::string &version) = 0;

 protected:
  Object *obj;
  Object *src_obj;
  rgw::notify::EventType event_type;
};

}  // namespace rgw::sal
