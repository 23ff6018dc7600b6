// An object server in C++ that tells of what it stores: PUT, GET and DELETE of /bucket/key on a directory, through cpp-httplib.
//
//   c++ -std=c++17 object_server.cc -ltidewire -lcpp-httplib -pthread -o object_server
//   ./object_server 8080 /srv/objects tidewire.toml
//
// A reservation that goes out of scope is aborted, and so an exception anywhere between it and the commit tells nothing. The
// commit is made under the lock of the key, so that events come in the order of the changes, and returns when it is durable.
#include <fcntl.h>
#include <httplib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <functional>
#include <iostream>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tidewire.hpp>

namespace {

[[noreturn]] void fail(const char *what) { throw std::system_error(errno, std::generic_category(), what); }

// An object's file, or one that may become it; a name that is not given away is removed.
class Upload {
 public:
  explicit Upload(const std::string &directory) : path_(directory + "/.upload-XXXXXX"), fd_(mkstemp(path_.data())) {
    if (fd_ < 0) fail("cannot make a file");
  }
  Upload(const Upload &) = delete;
  Upload &operator=(const Upload &) = delete;
  ~Upload() {
    close(fd_);
    if (!path_.empty()) unlink(path_.c_str());
  }

  void write(const char *data, std::size_t len) {
    for (size_ += len; len > 0;) {
      const ssize_t written = ::write(fd_, data, len);
      if (written < 0) fail("cannot write");
      data += written;
      len -= static_cast<std::size_t>(written);
    }
  }
  void sync() {
    if (fsync(fd_) != 0) fail("cannot sync");
  }
  void become(const std::string &path) {
    if (rename(path_.c_str(), path.c_str()) != 0) fail("cannot rename");
    path_.clear();
  }
  std::uint64_t size() const { return size_; }
  std::string etag() const {
    struct stat file {};
    if (fstat(fd_, &file) != 0) fail("cannot look at a file");
    return std::to_string(file.st_ino) + "-" + std::to_string(size_);
  }

 private:
  std::string path_;
  int fd_;
  std::uint64_t size_ = 0;
};

class Store {
 public:
  Store(std::string directory, const tidewire::Engine &engine) : directory_(std::move(directory)), engine_(engine) {}

  std::string put(const httplib::Request &request, Upload &upload) {
    upload.sync();
    const Name name(request);
    const auto reservation =
        engine_.reserve(tidewire::Event(TIDEWIRE_EVENT_OBJECT_CREATED_PUT, name.bucket, name.key)
                            .content_type(request.get_header_value("Content-Type"))
                            .source_ip(request.remote_addr)
                            .request_id(request.get_header_value("X-Request-Id")));
    const std::lock_guard lock(lock_of(name));
    const std::string etag = upload.etag();
    upload.become(path(name));
    reservation.commit(tidewire::Commit().size(upload.size()).etag(etag));
    return etag;
  }

  bool remove(const httplib::Request &request) {
    const Name name(request);
    const auto reservation = engine_.reserve(
        tidewire::Event(TIDEWIRE_EVENT_OBJECT_REMOVED_DELETE, name.bucket, name.key).source_ip(request.remote_addr));
    const std::lock_guard lock(lock_of(name));
    if (unlink(path(name).c_str()) != 0) {
      if (errno == ENOENT) return false;
      fail("cannot remove");
    }
    reservation.commit();
    return true;
  }

  bool get(const httplib::Request &request, std::string &body) const {
    const int fd = open(path(Name(request)).c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    std::array<char, 65536> part;
    for (ssize_t len; (len = read(fd, part.data(), part.size())) > 0;) body.append(part.data(), static_cast<std::size_t>(len));
    close(fd);
    return true;
  }

  const std::string &directory() const { return directory_; }

 private:
  struct Name {
    explicit Name(const httplib::Request &request) : bucket(request.matches[1]), key(request.matches[2]) {}
    std::string bucket, key;
  };

  // No byte of a name can leave the directory.
  std::string path(const Name &name) const {
    std::string path = directory_ + "/";
    for (const unsigned char c : name.bucket + "/" + name.key) {
      char hex[4];
      std::snprintf(hex, sizeof hex, "%%%02X", c);
      path += std::isalnum(c) || c == '-' || c == '_' ? std::string(1, static_cast<char>(c)) : hex;
    }
    return path;
  }

  std::mutex &lock_of(const Name &name) { return locks_[std::hash<std::string>()(name.bucket + "/" + name.key) % locks_.size()]; }

  std::string directory_;
  const tidewire::Engine &engine_;
  std::array<std::mutex, 64> locks_;
};

int status_of(const std::exception_ptr &thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const tidewire::Error &e) {
    std::cerr << e.what() << std::endl;
    return e.code() == TIDEWIRE_FULL ? 503 : e.code() == TIDEWIRE_INVALID_EVENT ? 400 : 500;
  } catch (const std::exception &e) {
    std::cerr << e.what() << std::endl;
    return 500;
  }
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 4) {
    std::cerr << "usage: " << argv[0] << " PORT DIRECTORY CONFIGURATION\n";
    return 2;
  }
  try {
    const tidewire::Engine engine(tidewire::Options::file(argv[3]));
    Store store(argv[2], engine);
    httplib::Server server;
    const char *const object = "/([^/]+)/(.+)";
    server.Put(object, [&](const httplib::Request &request, httplib::Response &response, const httplib::ContentReader &read) {
      Upload upload(store.directory());
      const bool whole = read([&](const char *data, std::size_t len) {
        upload.write(data, len);
        return true;
      });
      if (!whole) {  // the client has gone: there is nothing to tell
        response.status = 400;
        return;
      }
      response.set_header("ETag", store.put(request, upload));
      response.status = 201;
    });
    server.Delete(object, [&](const httplib::Request &request, httplib::Response &response) {
      response.status = store.remove(request) ? 204 : 404;
    });
    server.Get(object, [&](const httplib::Request &request, httplib::Response &response) {
      std::string body;
      response.status = store.get(request, body) ? 200 : 404;
      response.set_content(std::move(body), "application/octet-stream");
    });
    server.set_exception_handler([](const httplib::Request &, httplib::Response &response, std::exception_ptr thrown) {
      response.status = status_of(thrown);
    });

    sigset_t end;
    sigemptyset(&end);
    sigaddset(&end, SIGINT);
    sigaddset(&end, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &end, nullptr);
    std::thread stop([&] {
      int signal;
      sigwait(&end, &signal);
      server.stop();
    });
    std::thread([&] {
      while (!server.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      std::cout << "ready" << std::endl;
    }).detach();
    const bool listened = server.listen("127.0.0.1", std::stoi(argv[1]));
    if (!listened) kill(getpid(), SIGTERM);
    stop.join();
    return listened ? EXIT_SUCCESS : EXIT_FAILURE;
  } catch (const std::exception &e) {
    std::cerr << e.what() << std::endl;
    return EXIT_FAILURE;
  }
}
