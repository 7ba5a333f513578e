package kallsyms

import "sync/atomic"

// recent are names that were asked for: who looks at a guest once a second asks for the same few
// thousand each time, and to find one up to 255 others are passed over. There is room for one name of
// those whose numbers end alike.
type recent [1 << 12]atomic.Pointer[recentName]

type recentName struct {
	i    int
	name string
}

func (t *Table) recall(i int) (name string, ok bool) {
	r := t.recent.Load()
	if r == nil {
		return "", false
	}
	if n := r[i%len(r)].Load(); n != nil && n.i == i {
		return n.name, true
	}
	return "", false
}

func (t *Table) remember(i int, name string) string {
	r := t.recent.Load()
	if r == nil {
		t.recent.CompareAndSwap(nil, &recent{})
		r = t.recent.Load()
	}
	r[i%len(r)].Store(&recentName{i, name})
	return name
}
