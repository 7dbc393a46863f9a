#include "etcd/client.hh"

#include "etcd/gateway.hh"
#include "etcd/messages.hh"

namespace godwit::etcd {

struct Client::Work {
  Work(Access access, const std::atomic<bool>& stops) : gateway(std::move(access), stops) {}
  os::Loop loop;
  Gateway gateway;
};

Client::Client(os::Loop& loop, Access access)
    : loop_(loop),
      work_(std::make_shared<Work>(std::move(access), stops_)),
      thread_([work = work_] { work->loop.run(); }) {}

Client::~Client() {
  stops_ = true;
  work_->loop.stop();
  thread_.join();
}

template <class T>
void Client::ask(const char* path, nlohmann::json body, Result<T> (*parse)(const nlohmann::json&),
                 Answer<T> answer) {
  if (waiting_ >= kMostWaiting) {
    return loop_.post([answer = std::move(answer)]() mutable {
      answer(fail("{} requests wait for etcd already", kMostWaiting));
    });
  }
  ++waiting_;
  work_->loop.post([this, path, body = std::move(body), parse, answer = std::move(answer),
                    alive = std::weak_ptr(alive_)]() mutable {
    auto reply = work_->gateway.call(path, body);
    Result<T> result = reply ? parse(*reply) : Result<T>(std::unexpected(reply.error()));
    loop_.post([this, result = std::move(result), answer = std::move(answer),
                alive = std::move(alive)]() mutable {
      if (alive.expired()) return;
      --waiting_;
      answer(std::move(result));
    });
  });
}

void Client::read(const std::vector<std::string>& keys, Answer<Found> answer) {
  ask("/v3/kv/txn", read_request(keys), &read_answer, std::move(answer));
}

void Client::list(const std::string& prefix, std::size_t limit, Answer<Found> answer) {
  ask("/v3/kv/range", list_request(prefix, limit), &list_answer, std::move(answer));
}

void Client::write(const Write& write, Answer<bool> answer) {
  ask("/v3/kv/txn", write_request(write), &write_answer, std::move(answer));
}

}  // namespace godwit::etcd
