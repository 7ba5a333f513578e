package check

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux/kobj"
)

func init() {
	Register(Check{
		ID:        "cleared-log",
		Title:     "Messages of the kernel that its readers no longer get",
		Severity:  Low,
		Technique: "T1070.002", // Clear Linux or Mac System Logs
		Source:    "clear_seq against the sequence numbers of the records in prb",
		Proves: `Somebody with CAP_SYSLOG cleared the kernel's log (dmesg -c or -C): dmesg starts behind that. The messages themselves are in the kernel's ring until newer
ones take their place, and are shown.`,
		Blind: `Messages that newer ones have overwritten, and records that were changed where they lie.`,
		Next: `"outsight dmesg TARGET" shows what the guest's own dmesg does not: look for modules that were loaded, taint, promiscuous interfaces and faults before the moment it was
cleared. What journald or syslog wrote down meanwhile is on the guest's disk.`,
		Example: `After "dmesg -C" in the guest:

    $ outsight check lab:demo --only cleared-log
    SEVERITY  CONFIDENCE  CHECK        TITLE
    low       possible    cleared-log  the kernel's log was cleared: 612 messages are still in it that readers do not get`,
		Kept: true,
		Run:  clearedLog,
	})
}

func clearedLog(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		at, ok := s.Linux.Address("clear_seq")
		if !ok {
			yield(nil, fmt.Errorf("clear_seq: %w", kobj.ErrUnsupported))
			return
		}
		o, err := kobj.LayoutOf(s.Linux.Walker, "clearing of the log", func(r *kobj.Resolver, o *struct{ values kobj.Field }) {
			o.values = r.Optional("latched_seq", "val") // 5.13 (b371cbb58481), before the number itself
		})
		if err != nil {
			yield(nil, err)
			return
		}
		number := at
		if o.values.Present() {
			number = o.values.At(at) // two, the same but for an instant
		}
		cleared, err := s.Linux.Space.U64(number)
		if err != nil {
			yield(nil, fmt.Errorf("clear_seq: %w", err))
			return
		}
		if cleared == 0 {
			return
		}
		n, last := 0, ""
		for m, err := range s.Linux.Messages(ctx) {
			if err != nil {
				yield(nil, fmt.Errorf("kernel log: %w", err))
				return
			}
			if m.Seq < cleared {
				n++
				last = m.Text
			}
		}
		if n == 0 {
			return
		}
		yield(&Finding{
			Confidence: Possible,
			Title:      fmt.Sprintf("the kernel's log was cleared: %d messages are still in it that readers do not get", n),
			Object:     Object{Kind: "kernel log", Name: "dmesg", Addr: at},
			Expected:   "clear_seq is 0: nobody clears the log",
			Seen:       fmt.Sprintf("clear_seq is %d; the last message before it is %q", cleared, last),
			Evidence:   []Evidence{{Text: "clear_seq", Addr: at}},
			Basis:      "the kernel's record of its own log",
			Show:       fmt.Sprintf("outsight dmesg {} --where 'seq < %d'", cleared),
		}, nil)
	}
}
