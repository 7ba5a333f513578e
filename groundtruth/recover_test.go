package groundtruth

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// TestGuestRecover compares what is recovered of files with what the guest reads in them:
// of a file with holes, of one that was unlinked, and of one on a disk, of which only
// some pages are in memory.
func TestGuestRecover(t *testing.T) {
	labtest.NeedQEMU(t)
	g := guests.UpServer(t, lab.Options{Kernel: "6.12", Memory: gib / 2, SMP: 2})
	recover := func(path string) (content []byte, told string, status int) {
		t.Helper()
		cmd := exec.Command(command(t), "recover", "qemu:"+g.QMP(), path)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		content, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return content, stderr.String(), cmd.ProcessState.ExitCode()
	}
	whole := func(path, digest string) {
		t.Helper()
		content, told, status := recover(path)
		if got := fmt.Sprintf("%x", sha256.Sum256(content)); got != digest || status != 0 {
			t.Errorf("%s: %d bytes with digest %s, status %d, %s; the guest says %s", path, len(content), got, status, told, digest)
		}
	}
	digests := strings.Fields(labtest.Output(t, g, `cd /tmp || exit 1
dd if=/dev/urandom of=holes bs=4096 count=3 2>/dev/null; dd if=/dev/urandom of=holes bs=4096 seek=10 count=2 conv=notrunc 2>/dev/null
printf end >> holes; truncate -s 100001 holes; cp holes unlinked; sha256sum holes unlinked | cut -d' ' -f1
exec 3<unlinked; sleep 100000 >/dev/null 2>&1 & rm unlinked`))
	if len(digests) != 2 {
		t.Fatalf("digests: %q", digests)
	}
	whole("/tmp/holes", digests[0])
	// Relative, absolute, of folders, too long for an inode, and some in a row.
	labtest.Output(t, g, `cd /tmp && mkdir -p far/away && ln -s ../../holes far/away/near && ln -s /tmp/far/away way && ln -s way/near short || exit 1
ln -s ./././././././././././././././././././././././././././././././././././././././././././././././././././holes long; ln -s loop loop`)
	for _, link := range []string{"/tmp/far/away/near", "/tmp/way/near", "/tmp/short", "/tmp/long", "//tmp/./short"} {
		whole(link, digests[0])
	}
	for _, link := range []string{"/tmp/loop", "/tmp/far"} {
		if _, told, status := recover(link); status != 3 || !strings.Contains(told, link) {
			t.Errorf("%s: status %d, %s", link, status, told)
		}
	}
	whole("/tmp/unlinked", digests[1])

	const pages, size = 64, 64*4096 - 1000
	labtest.Output(t, g, fmt.Sprintf(`cd /tmp && dd if=/dev/zero of=disk bs=1M count=8 2>/dev/null && mke2fs -F disk >/dev/null && mkdir -p mnt && mount -o loop -t ext2 disk mnt || exit 1
dd if=/dev/urandom of=mnt/file bs=%d count=1 2>/dev/null; sync; echo 3 > /proc/sys/vm/drop_caches
for f in /sys/block/loop*/queue/read_ahead_kb; do echo 0 > $f; done
dd if=mnt/file of=/dev/null bs=4096 count=4 2>/dev/null; dd if=mnt/file of=/dev/null bs=4096 skip=40 count=2 2>/dev/null`, size))
	part, told, status := recover("/tmp/mnt/file")
	content := []byte(labtest.Output(t, g, "cat /tmp/mnt/file")) // and with that all of it is in memory
	if len(part) != size || len(content) != size || status != 3 {
		t.Fatalf("%d bytes, status %d, %s; the guest reads %d", len(part), status, told, len(content))
	}
	missing := make([]bool, pages)
	for line := range strings.Lines(told) {
		var start, end int
		if _, err := fmt.Sscanf(line, "outsight: missing: %d-%d not in memory", &start, &end); err != nil {
			continue
		}
		for page := start / 4096; page < pages && page*4096 < end; page++ {
			missing[page] = true
		}
	}
	for page := range pages {
		from, to := page*4096, min((page+1)*4096, size)
		want := content[from:to]
		if missing[page] {
			want = make([]byte, to-from)
		}
		if !bytes.Equal(part[from:to], want) {
			t.Errorf("page %d differs; missing: %v", page, missing[page])
		}
		if read := page < 4 || page == 40 || page == 41; read && missing[page] {
			t.Errorf("page %d was read and is missing", page)
		}
	}
	if !missing[20] || !missing[60] {
		t.Errorf("pages that nobody read are there: %s", told)
	}
	whole("/tmp/mnt/file", fmt.Sprintf("%x", sha256.Sum256(content)))
}
