package tcg

import (
	"context"
	"errors"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outsight-vmi/outsight/virt"
)

// TestMounts asks for file systems that are mounted nowhere, in turn: each second has one look at most, and when all are known, there is none.
func TestMounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		now := map[virt.Addr]string{1: "/"}
		m := mounts{at: map[virt.Addr]string{1: "/"}, look: func(context.Context) (map[virt.Addr]string, error) {
			looks++
			time.Sleep(10 * time.Second) // many mounts
			return maps.Clone(now), nil
		}}
		ask := func(super virt.Addr, want string) {
			t.Helper()
			if got := m.under(t.Context(), super); got != want {
				t.Errorf("%d is mounted at %q, want %q", super, got, want)
			}
		}
		for range 100 {
			ask(1, "/")
			ask(2, "")
			ask(3, "")
			time.Sleep(time.Millisecond)
		}
		if looks != 1 {
			t.Errorf("%d looks within a second", looks)
		}
		time.Sleep(time.Second)
		ask(3, "")
		time.Sleep(time.Minute)
		for range 100 {
			ask(2, "")
			ask(3, "")
			time.Sleep(time.Second)
		}
		if looks != 2 {
			t.Errorf("%d looks for two file systems", looks)
		}
		now[2], now[4] = "/mnt", "/srv"
		ask(4, "/srv")
		ask(2, "/mnt")
		ask(3, "")
		if looks != 3 {
			t.Errorf("%d looks, want 3", looks)
		}
		m.look = func(context.Context) (map[virt.Addr]string, error) { looks++; return nil, errors.New("paused") }
		time.Sleep(time.Minute)
		ask(5, "")
		ask(5, "")
		ask(1, "/")
		if looks != 4 {
			t.Errorf("%d looks, want 4: one that fails, too, is not repeated at once", looks)
		}
	})
}
