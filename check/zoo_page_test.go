package check_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// What the zoos found: each trick on each kernel, the newest of each.
const (
	zooBook = "../docs/zoo.jsonl"
	zooPage = "../docs/zoo.md"
)

// zooFact is what the checks found of one trick on one kernel.
type zooFact struct {
	Zoo    string   `json:"zoo"` // the test that did it
	Trick  string   `json:"trick"`
	Kernel string   `json:"kernel"`
	Fired  []string `json:"fired"`            // the checks that found something
	Missed []string `json:"missed,omitempty"` // those that should have
}

func (f zooFact) key() [3]string { return [3]string{f.Zoo, f.Trick, f.Kernel} }

// recordZoo keeps what was found of a trick, in the file that OUTSIGHT_ZOO names.
func recordZoo(t *testing.T, trick string, fired map[string]bool, wanted []string) {
	t.Helper()
	parts := strings.Split(t.Name(), "/")
	if os.Getenv("OUTSIGHT_ZOO") == "" || len(parts) < 2 {
		return
	}
	f := zooFact{Zoo: parts[0], Kernel: parts[1], Trick: trick, Fired: slices.Sorted(maps.Keys(fired))}
	for _, id := range wanted {
		if !strings.HasPrefix(id, "?") && !fired[id] {
			f.Missed = append(f.Missed, id)
		}
	}
	line, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	recordFacts(t, string(line)+"\n")
}

// recordFacts adds lines to the file that OUTSIGHT_ZOO names.
func recordFacts(t *testing.T, lines string) {
	t.Helper()
	name := os.Getenv("OUTSIGHT_ZOO")
	if name == "" {
		return
	}
	// One write: guests are judged side by side.
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = file.WriteString(lines)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// readZoo takes the facts in a file in; one that is not there has none.
func readZoo(t *testing.T, name string, book map[[3]string]zooFact) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		var f zooFact
		if err := json.Unmarshal(s.Bytes(), &f); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		book[f.key()] = f
	}
}

// TestZooPage: the page of the zoo says what the book does. With -update it takes in what the
// file has that OUTSIGHT_ZOO names, and leaves out tricks that there are no more.
func TestZooPage(t *testing.T) {
	book := map[[3]string]zooFact{}
	readZoo(t, zooBook, book)
	if *update && os.Getenv("OUTSIGHT_ZOO") != "" {
		readZoo(t, os.Getenv("OUTSIGHT_ZOO"), book)
	}
	known := zooTricks()
	maps.DeleteFunc(book, func(k [3]string, _ zooFact) bool { return known[k[1]] == nil })
	keys := slices.SortedFunc(maps.Keys(book), func(a, b [3]string) int { return slices.Compare(a[:], b[:]) })
	var lines bytes.Buffer
	for _, k := range keys {
		line, err := json.Marshal(book[k])
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(line, '\n'))
	}
	page := zooText(book, keys)
	if *update {
		for name, text := range map[string][]byte{zooBook: lines.Bytes(), zooPage: []byte(page)} {
			if err := os.WriteFile(name, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := os.ReadFile(zooPage); err != nil || string(got) != page {
		t.Errorf("%s is not what %s says (%v): go test ./check -run TestZooPage -update", zooPage, zooBook, err)
	}
}

// zooNames are what the zoos do, by their tests.
var zooNames = map[string]string{
	"TestGuestZoo": "Lists, code and page tables, changed from outside", "TestGuestKernelZoo": "The kernel's own structures, changed from outside",
	"TestGuestZooPrograms": "Programs in the guest", "TestGuestZooModules": "Kernel modules in the guest", "TestGuestBusy": "BPF programs that are hidden",
	"TestGuestCredentialsRise": "Credentials, at two looks", "TestInsideZoo": "On KVM: lists, code and page tables, changed from outside",
	"TestGuestImports": "Functions of libraries, redirected", "TestGuestZooSpaces": "Processes that run, changed from outside while outsight listens",
	"TestGuestListen": "Answers to programs, filtered (check --listen)",
}

func zooText(book map[[3]string]zooFact, keys [][3]string) string {
	var b strings.Builder
	b.WriteString("# The zoo: tricks, kernels, and the checks that found them\n\n<!-- Written by make zoo. -->\n\n")
	b.WriteString("Each trick is done to a guest that nothing was found on before, and taken back. A cell names the checks that found it, and in **bold** those that should have and did not. ")
	b.WriteString("Tricks named *healthy* look like one and must not be found. An empty cell is a trick that was not done on that kernel, or that it has nothing for. ")
	b.WriteString("[coverage.md](coverage.md) says what intruders do and which tricks stand for it.\n")
	kernels := []string{"5.10", "6.1", "6.12", "7.2"}
	zoo, trick := "", ""
	for _, k := range keys {
		if k[0] != zoo {
			zoo, trick = k[0], ""
			fmt.Fprintf(&b, "\n## %s\n\n| trick | %s |\n|---%s|\n", zooNames[zoo], strings.Join(kernels, " | "), strings.Repeat("|---", len(kernels)))
		}
		if k[1] == trick {
			continue
		}
		trick = k[1]
		b.WriteString("| " + trick)
		for _, kernel := range kernels {
			f := book[[3]string{zoo, trick, kernel}]
			cell := strings.Join(f.Fired, ", ")
			if cell == "" && f.Trick != "" && len(f.Missed) == 0 {
				cell = "–"
			}
			if len(f.Missed) > 0 {
				cell = strings.TrimPrefix(cell+" **not "+strings.Join(f.Missed, ", ")+"**", " ")
			}
			b.WriteString(" | " + cell)
		}
		b.WriteString(" |\n")
	}
	return b.String()
}

// zooTricks are what must find each trick, by its name; empty of a healthy thing.
func zooTricks() map[string][]string {
	all := map[string][]string{}
	add := func(name string, want []string) { all[name] = append([]string{}, want...) }
	for _, k := range slices.Concat(tricks(), kernelTricks(), descriptorTricks(), dataTricks(), bpfTricks(), spaceTricks()) {
		add(k.name, k.want)
	}
	for _, k := range slices.Concat(programTricks, confinementTricks) {
		add(k.name, k.want)
	}
	for _, k := range moduleTricks {
		add(k.name, k.want)
	}
	for _, l := range readerLies {
		add(l.name, []string{"lied-to"})
	}
	add(riseTrick, []string{"stolen-credentials"})
	add("address of a function led to the heap", []string{"redirected-import"})
	return all
}
