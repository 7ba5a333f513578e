package top

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Batch prints frames as plain text, an empty line between them: n of them, or,
// where n is 0, until ctx or the guest ends. Before the first it looks once and
// waits, because percentages are of an interval; a dump has none.
func Batch(ctx context.Context, s Source, w io.Writer, o Options, interval time.Duration, n, width int) error {
	var before *Sample
	if s.Live() {
		var err error
		if before, err = s.Sample(ctx); err != nil {
			return err
		}
	}
	for i := 0; n == 0 || i < n; i++ {
		if s.Live() {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(interval):
			}
		}
		now, err := s.Sample(ctx)
		if err != nil {
			return err
		}
		frame := Text(before, now, o, width)
		if i > 0 {
			frame = "\n" + frame
		}
		if _, err := io.WriteString(w, frame); err != nil {
			return fmt.Errorf("write the output: %w", err)
		}
		if !s.Live() {
			return nil // it would be the same again
		}
		before = now
	}
	return nil
}
