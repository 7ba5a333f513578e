package check

import "github.com/outsight-vmi/outsight/virt"

// passingOps is what was found of an object that may go while it is judged.
type passingOps struct {
	seen  []opsKey
	found []opsResult
}

// opsResult is what was found, or could not be read.
type opsResult struct {
	f   *Finding
	err error
	key opsKey // of the table; none: of what is in no table
	// doubted is the table, if what was found is that it is in the place of another.
	doubted virt.Addr
}

// passingTries is how often an object is judged that may go meanwhile.
const passingTries = 3

// judgePassing judges an object that may go while it is judged, or have been free when its page was read
// for the look: busy programs open and close files in the same memory, so that the same would be found again at the next
// look (i_fop of an inode that is being freed is the function that frees it, since 5.2). What is found or
// cannot be read is therefore read again, from the guest, and reported if it is found then, too, while the object is there.
func (w *opsWalk) judgePassing(there func() bool, judge func()) {
	p := &w.room
	p.seen, p.found = p.seen[:0], p.found[:0]
	w.passing = p
	judge()
	for try := 1; len(p.found) > 0 && try < passingTries && there(); try++ {
		now := w.linux.Fresh()
		if now == w.linux {
			break // nothing is kept
		}
		w.forget(p)
		w.linux, w.r = now, now.Reader()
		judge()
	}
	w.passing = nil
	if w.linux != w.s.Linux {
		w.linux, w.r = w.s.Linux, w.s.Linux.Reader()
	}
	if len(p.found) > 0 && !there() {
		w.forget(p)
	}
	for _, r := range p.found {
		w.key, w.doubted = r.key, r.doubted
		w.report(r.f, r.err)
	}
	w.key, w.doubted = opsKey{}, 0
}

// forget forgets what was found, and that its tables were judged: the next object that has one of them is.
func (w *opsWalk) forget(p *passingOps) {
	for _, key := range p.seen {
		delete(w.seen, key)
		delete(w.faulty, key.table)
	}
	p.seen, p.found = p.seen[:0], p.found[:0]
}
