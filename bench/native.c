// The same loops as bench/native.js, in C: prints the nanoseconds of one round. Built and run by it.
//     native MODE ROUNDS GUEST       MODE: exit, ioctl, ioeventfd, irqfd; GUEST: a file with the 64 KiB of the guest's memory
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MEMORY = 0x10000, LOW = 0xc000, DEVICE = 0xd000, FLAG = 0x8000, GSI = 4 };

static int check(int result, const char *what) {
  if (result >= 0) return result;
  perror(what);
  exit(1);
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static int vcpu;

static void *run(void *unused) {
  (void)unused;
  for (;;) ioctl(vcpu, KVM_RUN, 0);
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  const char *mode = argv[1];
  const int rounds = atoi(argv[2]);
  const int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  uint64_t begin = now();
  if (strcmp(mode, "ioctl") == 0) {
    for (int i = 0; i < rounds; i++) check(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS), "KVM_CHECK_EXTENSION");
    printf("%f\n", (double)(now() - begin) / rounds);
    return 0;
  }
  const int vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
  if (strcmp(mode, "irqfd") == 0) check(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
  uint8_t *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const int guest = check(open(argv[3], O_RDONLY | O_CLOEXEC), argv[3]);
  check((int)read(guest, memory, MEMORY), "read");
  struct kvm_userspace_memory_region low = {.slot = 0, .memory_size = LOW, .userspace_addr = (uintptr_t)memory};
  struct kvm_userspace_memory_region high = {
      .slot = 1, .guest_phys_addr = 0xffff0000, .memory_size = MEMORY, .userspace_addr = (uintptr_t)memory};
  check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &low), "KVM_SET_USER_MEMORY_REGION");
  check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &high), "KVM_SET_USER_MEMORY_REGION");
  vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");

  if (strcmp(mode, "exit") == 0) {
    const int size = check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
    struct kvm_run *area = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    uint64_t sum = 0;
    begin = now();
    for (int i = 0; i < rounds; i++) {
      check(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
      if (area->exit_reason != KVM_EXIT_MMIO) return 1;
      sum += area->mmio.data[0] + area->mmio.phys_addr;
    }
    printf("%f\n", (double)(now() - begin) / rounds);
    return sum == 0;
  }

  const int kick = check(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
  struct kvm_ioeventfd io = {.addr = DEVICE, .len = 1, .fd = kick};
  check(ioctl(vm, KVM_IOEVENTFD, &io), "KVM_IOEVENTFD");
  const int line = check(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
  const int irq = strcmp(mode, "irqfd") == 0;
  if (irq) {
    struct kvm_irqfd irqfd = {.fd = (uint32_t)line, .gsi = GSI};
    check(ioctl(vm, KVM_IRQFD, &irqfd), "KVM_IRQFD");
  }
  const int loop = check(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  struct epoll_event event = {.events = EPOLLIN};
  check(epoll_ctl(loop, EPOLL_CTL_ADD, kick, &event), "epoll_ctl");
  pthread_t thread;
  if (pthread_create(&thread, NULL, run, NULL) != 0) return 1;
  // The first is the guest's start.
  for (int i = -1; i < rounds; i++) {
    if (epoll_wait(loop, &event, 1, -1) != 1) return 1;
    uint64_t count = 1;
    if (i == -1) begin = now();
    if (read(kick, &count, sizeof count) != sizeof count) return 1;
    if (irq) {
      count = 1;
      if (write(line, &count, sizeof count) != sizeof count) return 1;
    } else {
      __atomic_store_n(memory + FLAG, 1, __ATOMIC_SEQ_CST);
    }
  }
  printf("%f\n", (double)(now() - begin) / rounds);
  return 0;
}
