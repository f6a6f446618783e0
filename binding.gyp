# Built by `npm run build:native` (node-gyp); never by an install: package.json says "gypfile": false.
{
  'variables': { 'sanitize%': '' },  # node-gyp rebuild -- -Dsanitize=address
  'targets': [{
    'target_name': 'kvm',
    'conditions': [
      ['OS=="linux" and (target_arch=="arm64" or target_arch=="x64")', {
        'sources': [
          'native/addon.cc',
          'native/device.cc',
          'native/eventfd.cc',
          'native/handle.cc',
          'native/memory.cc',
          'native/run.cc',
          'native/system.cc',
          'native/vcpu.cc',
          'native/vcpu_thread.cc',
          'native/vm.cc',
        ],
        # No C++ exceptions: the addon returns negative errnos and never throws.
        'dependencies': ["<!(node -p \"require('node-addon-api').targets\"):node_addon_api"],
        'defines': [
          'NAPI_VERSION=9',
          'NODE_ADDON_API_DISABLE_DEPRECATED',
          'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
          '_GNU_SOURCE',
          '_FILE_OFFSET_BITS=64',
        ],
        # The headers of Node 20 and 22 ask for gnu++17, those of 24 and 26 for gnu++20.
        'cflags_cc!': ['-std=gnu++17', '-std=gnu++20'],
        'cflags_cc': [
          '-std=c++20',
          '-Wall',
          '-Wextra',
          '-Wconversion',
          '-Werror=return-type',
          '-fvisibility=hidden',
          '-fstack-protector-strong',
        ],
        # nodelete: a signal may arrive while the last environment goes away.
        'ldflags': [
          '-Wl,-z,now',
          '-Wl,-z,relro',
          '-Wl,-z,nodelete',
          '-Wl,--version-script=<(module_root_dir)/native/exports.map',
        ],
        'conditions': [
          ['sanitize!=""', {
            'cflags': ['-fsanitize=<(sanitize)', '-fno-omit-frame-pointer', '-g'],
            'ldflags': ['-fsanitize=<(sanitize)'],
          }],
        ],
      }, { 'type': 'none' }],  # elsewhere there is nothing to build, and that is no failure
    ],
  }],
}
