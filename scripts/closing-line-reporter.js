/** Names every skipped test and ends the run with one plain line that any CI can read: `N passed, N failed, N skipped`. */
export default class ClosingLineReporter {
  onRunComplete(_contexts, results) {
    for (const file of results.testResults) {
      for (const test of file.testResults) {
        if (test.status === 'pending') console.log(`skipped: ${test.fullName}`);
      }
    }
    const failed = results.numFailedTests + results.numRuntimeErrorTestSuites;
    // At the very end, behind what the other reporters print.
    process.once('exit', () => {
      console.log(`${results.numPassedTests} passed, ${failed} failed, ${results.numPendingTests} skipped`);
    });
  }
}
