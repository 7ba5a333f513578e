// Package groundtruth holds the tests that matter most: what outsight sees in a
// running guest from outside must equal, field by field, what the guest's own
// kernel says inside. Each boots real guests (package lab), fills them with
// processes of every awkward kind (groundtruth/guests/crowd), and asks the guest itself
// (groundtruth/guests/truth) before and after the look from outside.
//
// The guest keeps running meanwhile. What both answers of the guest agree on must
// be seen just so; what changed between them must lie between them. A process
// that is only in one of the three lists must have been born or have died in
// between, which its start time and the guest's clock show.
package groundtruth
