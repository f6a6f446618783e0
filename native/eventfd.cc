// eventfd(2), and listeners that the event loop calls.
#include <sys/eventfd.h>
#include <unistd.h>

#include "environment.h"

namespace elvisor {

// In a list of its environment, until libuv has let go of it.
struct Poll {
  uv_poll_t handle{};
  Environment* environment = nullptr;
  Poll* next = nullptr;
  EventFd* eventfd = nullptr;
  napi_ref listener = nullptr;
  // The eventfd's handle: it is not collected while somebody listens.
  napi_ref self = nullptr;
};

namespace {

void on_closed(uv_handle_t* handle) {
  auto* poll = static_cast<Poll*>(handle->data);
  Environment& environment = *poll->environment;
  for (Poll** link = &environment.polls; *link != nullptr; link = &(*link)->next) {
    if (*link != poll) continue;
    *link = poll->next;
    break;
  }
  delete poll;
  end_if_done(environment);
}

// Ends the listening. The eventfd's descriptor may be closed afterwards.
void close_poll(Poll* poll) {
  if (poll->eventfd == nullptr) return;
  std::exchange(poll->eventfd, nullptr)->poll = nullptr;
  napi_env env = poll->environment->env;
  if (poll->listener != nullptr) napi_delete_reference(env, std::exchange(poll->listener, nullptr));
  if (poll->self != nullptr) napi_delete_reference(env, std::exchange(poll->self, nullptr));
  uv_poll_stop(&poll->handle);
  uv_close(reinterpret_cast<uv_handle_t*>(&poll->handle), on_closed);
}

int64_t take(const EventFd& eventfd) {
  uint64_t count = 0;
  if (read(eventfd.fd.get(), &count, sizeof count) != sizeof count) return errno == EAGAIN ? 0 : -errno;
  return count > INT64_MAX ? INT64_MAX : static_cast<int64_t>(count);
}

void on_readable(uv_poll_t* handle, int status, int) {
  auto* poll = static_cast<Poll*>(handle->data);
  if (poll->eventfd == nullptr) return;
  napi_env env = poll->environment->env;
  if (status < 0) return close_poll(poll);
  const int64_t count = take(*poll->eventfd);
  if (count <= 0) return;  // someone else has taken it
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value listener = nullptr, global = nullptr, argument = nullptr;
  if (napi_get_reference_value(env, poll->listener, &listener) == napi_ok && listener != nullptr &&
      napi_get_global(env, &global) == napi_ok && napi_create_int64(env, count, &argument) == napi_ok &&
      napi_make_callback(env, nullptr, global, listener, 1, &argument, nullptr) == napi_pending_exception) {
    // The listener threw: an uncaught exception, as of every callback. `poll` may be gone.
    napi_value error;
    if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, scope);
}

// createEventFd()
napi_value create_eventfd(const Args& args) {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) return failed(args.env());
  return make_handle(args, std::make_shared<EventFd>(fd));
}

// eventFdSignal(eventfd, n)
napi_value signal(const Args& args) {
  auto* eventfd = args.open<EventFd>(0, Kind::eventfd);
  if (eventfd == nullptr) return number(args.env(), -EBADF);
  uint64_t n;
  if (!args.u53(1, n) || n == 0) return number(args.env(), -EINVAL);
  return write(eventfd->fd.get(), &n, sizeof n) == sizeof n ? number(args.env(), 0) : failed(args.env());
}

// eventFdRead(eventfd): the count taken, 0 where there is none.
napi_value read_count(const Args& args) {
  auto* eventfd = args.open<EventFd>(0, Kind::eventfd);
  if (eventfd == nullptr) return number(args.env(), -EBADF);
  return number(args.env(), take(*eventfd));
}

// eventFdListen(eventfd, function or undefined). A listener does not keep the event loop alive.
napi_value listen(const Args& args) {
  napi_env env = args.env();
  auto* eventfd = args.open<EventFd>(0, Kind::eventfd);
  if (eventfd == nullptr) return number(env, -EBADF);
  if (args.absent(1)) {
    if (eventfd->poll != nullptr) close_poll(eventfd->poll);
    return number(env, 0);
  }
  napi_valuetype type;
  if (napi_typeof(env, args[1], &type) != napi_ok || type != napi_function) return number(env, -EINVAL);
  Environment& here = environment(args);
  if (here.ending) return number(env, -ECANCELED);
  if (eventfd->poll != nullptr) close_poll(eventfd->poll);
  auto* poll = new Poll;
  if (const int error = uv_poll_init(here.loop, &poll->handle, eventfd->fd.get()); error != 0) {
    delete poll;
    return number(env, error);
  }
  poll->handle.data = poll;
  poll->environment = &here;
  poll->next = std::exchange(here.polls, poll);
  poll->eventfd = eventfd;
  eventfd->poll = poll;
  uv_unref(reinterpret_cast<uv_handle_t*>(&poll->handle));
  int error = 0;
  if (napi_create_reference(env, args[1], 1, &poll->listener) != napi_ok ||
      napi_create_reference(env, args[0], 1, &poll->self) != napi_ok) {
    error = -ENOMEM;
  } else {
    error = uv_poll_start(&poll->handle, UV_READABLE, on_readable);
  }
  if (error != 0) close_poll(poll);
  return number(env, error);
}

constexpr Export exports[] = {
    {"createEventFd", entry<create_eventfd>},
    {"eventFdSignal", entry<signal>},
    {"eventFdRead", entry<read_count>},
    {"eventFdListen", entry<listen>},
};

}  // namespace

void EventFd::before_close() {
  if (poll != nullptr) close_poll(poll);
}

void close_polls(Environment& environment) {
  for (Poll* poll = environment.polls; poll != nullptr; poll = poll->next) close_poll(poll);
}

std::span<const Export> eventfd_exports() { return exports; }

}  // namespace elvisor
