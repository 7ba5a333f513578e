package check

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// untoldMessages compares the ring of the kernel's log with what dmesg said of it. What is
// older than its first line was cleared or overwritten since, and what is newer than its last
// was written since.
func (s *Subject) untoldMessages(ctx context.Context, yield func(*Finding, error) bool) bool {
	for _, w := range s.Told.Words {
		if len(w.Log) == 0 {
			continue
		}
		lost, err := s.lostMessages(ctx, w)
		if err != nil {
			return yield(nil, err)
		}
		if len(lost) == 0 {
			continue
		}
		const shown = 5
		f := &Finding{
			Confidence: Likely,
			Title:      "messages of the kernel's log are not listed in the guest's " + w.source(),
			Object:     Object{Kind: "kernel log", Name: w.From},
			Expected:   "every message that is in the ring, between the first and the last that were listed",
			Seen:       fmt.Sprintf("%d in the guest's memory alone: %q", len(lost), lost[:min(shown, len(lost))]),
			Basis:      "the guest's own words, compared with its memory",
			Show:       "outsight dmesg {}",
		}
		if !yield(f, nil) {
			return false
		}
	}
	return true
}

// lostMessages are the texts of records of which a word has too few lines with their time.
func (s *Subject) lostMessages(ctx context.Context, w *Word) (lost []string, err error) {
	times := slices.Collect(maps.Keys(w.Log))
	first, last := slices.Min(times), slices.Max(times)
	ring := map[int64][]string{}
	for m, err := range s.Linux.Messages(ctx) {
		if err != nil {
			return nil, err // it says of the kernel's log
		}
		if at := m.Time.Microseconds(); at > first && at < last {
			ring[at] = append(ring[at], m.Text)
		}
	}
	for _, at := range slices.Sorted(maps.Keys(ring)) {
		missing := len(ring[at]) - len(w.Log[at])
		for _, text := range ring[at] {
			line, _, _ := strings.Cut(text, "\n")
			if missing > 0 && !slices.ContainsFunc(w.Log[at], func(said string) bool { return strings.Contains(said, line) }) {
				lost = append(lost, line)
				missing--
			}
		}
	}
	return lost, nil
}
