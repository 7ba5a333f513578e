package tcg

import (
	"context"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// mounts says where file systems are mounted for the first process.
type mounts struct {
	at     map[virt.Addr]string // by their super_block; empty: nowhere
	first  uint64               // number of its mount namespace; 0: unknown
	looked time.Time            // when the last look for one that was unknown ended
	look   func(context.Context) (map[virt.Addr]string, error)
}

const (
	maxMounted     = 1 << 16     // bounds the file systems that are known
	mountsLookedAt = time.Second // once in this time at most: the guest chooses how many file systems there are
)

func (m *mounts) init(g *guest.Guest) {
	m.look = func(ctx context.Context) (map[virt.Addr]string, error) {
		l, err := g.Look(ctx)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		return mountedIn(ctx, l.Linux), nil
	}
}

// under is where the file system of a super_block is mounted; empty: nowhere, or it is not known yet.
func (m *mounts) under(ctx context.Context, super virt.Addr) string {
	under, known := m.at[super]
	if known || time.Since(m.looked) < mountsLookedAt {
		return under
	}
	at, err := m.look(ctx) // it was mounted since
	m.looked = time.Now()
	if err != nil {
		return ""
	}
	// What is mounted nowhere (but in a container) stays known as that: no look would find it.
	for old, under := range m.at {
		if _, found := at[old]; !found && under == "" && len(at) < maxMounted {
			at[old] = ""
		}
	}
	if under, known = at[super]; !known && len(at) < maxMounted {
		at[super] = ""
	}
	m.at = at
	return under
}

// begin takes in what is mounted where.
func (m *mounts) begin(ctx context.Context, s *linux.System) {
	m.at, m.first = mountedIn(ctx, s), 0
	reader := s.NewProcessReader()
	for t, err := range s.Processes(ctx) {
		if err == nil {
			_, m.first, err = reader.MountNamespaceOf(t)
		}
		if err != nil {
			m.first = 0
		}
		return
	}
}

// mountedIn says where file systems are mounted for the first process, by their super_block.
func mountedIn(ctx context.Context, s *linux.System) map[virt.Addr]string {
	at := map[virt.Addr]string{}
	reader := s.NewProcessReader()
	for t, err := range s.Processes(ctx) {
		if err != nil {
			break
		}
		ns, _, err := reader.MountNamespaceOf(t)
		if err != nil {
			break
		}
		for m, err := range reader.Mounts(ctx, ns) {
			if err != nil || m.Root != "/" {
				continue
			}
			if old, ok := at[m.Super]; !ok || len(m.Point) < len(old) {
				at[m.Super] = strings.Clone(m.Point)
			}
		}
		break
	}
	return at
}
