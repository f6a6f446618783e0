/** Tests are TypeScript; what they test is the build (`#lib/*` is `dist/*`), so that Workers and the CLI run the same files. */
export default {
  testEnvironment: 'node',
  testMatch: ['<rootDir>/test/**/*.test.ts'],
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '^.+\\.ts$': ['@swc/jest', { jsc: { target: 'es2022', parser: { syntax: 'typescript' } } }] },
  reporters: ['default', '<rootDir>/scripts/closing-line-reporter.js'],
  maxWorkers: 2,
  testTimeout: 60_000,
};
