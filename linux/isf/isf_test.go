package isf_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/isf"
	"github.com/outsight-vmi/outsight/linux/synth"
)

func find() (*kernel.Kernel, error) {
	g := synth.New(synth.Options{Layout: synth.Place, Levels: 4, Offset: 0x1200_0000})
	return kernel.Find(context.Background(), g.Memory, kernel.Options{})
}

// A symbol file of a kernel that was found in memory.
func Example() {
	k, err := find()
	if err != nil {
		fmt.Println(err)
		return
	}
	var b bytes.Buffer
	if err := isf.Write(&b, isf.Of(k), "v1.2.3", time.Unix(0, 0)); err != nil {
		fmt.Println(err)
		return
	}
	var file struct {
		Metadata json.RawMessage
	}
	fmt.Println(json.Unmarshal(b.Bytes(), &file), string(file.Metadata))
	// Output: <nil> {"format":"6.2.0","linux":{"symbols":[],"types":[]},"producer":{"datetime":"1970-01-01T00:00:00Z","name":"outsight","version":"1.2.3"}}
}

// ref is a type as the format describes it.
type ref struct {
	Kind, Name string
	Subtype    *ref
	Type       *ref
}

type file struct {
	Base map[string]struct{ Size int } `json:"base_types"`
	User map[string]struct {
		Size   int
		Fields map[string]struct {
			Type   ref
			Offset int
		}
	} `json:"user_types"`
	Enums   map[string]struct{ Base string }
	Symbols map[string]struct {
		Address uint64
		Type    *ref
		Data    string `json:"constant_data"`
	}
}

func (f *file) whole(r *ref) error {
	ok := true
	switch r.Kind {
	case "struct", "union":
		_, ok = f.User[r.Name]
	case "enum":
		_, ok = f.Enums[r.Name]
	case "base":
		_, ok = f.Base[r.Name]
	}
	if !ok {
		return fmt.Errorf("%s %q is not described", r.Kind, r.Name)
	}
	for _, sub := range []*ref{r.Subtype, r.Type} {
		if sub != nil {
			if err := f.whole(sub); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestWhole: whatever is named is described, offsets are those of the kernel's
// types, and symbols are where they were linked.
func TestWhole(t *testing.T) {
	k, err := find()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := isf.Write(&b, isf.Of(k), "", time.Now()); err != nil {
		t.Fatal(err)
	}
	var f file
	if err := json.Unmarshal(b.Bytes(), &f); err != nil {
		t.Fatal(err)
	}
	for name, u := range f.User {
		for member, m := range u.Fields {
			if err := f.whole(&m.Type); err != nil {
				t.Errorf("%s.%s: %v", name, member, err)
			}
		}
	}
	for name, e := range f.Enums {
		if _, ok := f.Base[e.Base]; !ok {
			t.Errorf("enum %s: base %q", name, e.Base)
		}
	}
	for _, path := range []string{"comm", "tasks", "mm", "cred"} {
		want, err := k.Field("task_struct", path)
		if got := f.User["task_struct"].Fields[path]; err != nil || got.Offset != int(want.Offset) {
			t.Errorf("task_struct.%s at %d, want %d, %v", path, got.Offset, want.Offset, err)
		}
	}
	task, ok := k.Address("init_task")
	s := f.Symbols["init_task"]
	if !ok || s.Address != uint64(task)-k.Offset() || s.Type == nil || s.Type.Name != "task_struct" {
		t.Errorf("init_task: %+v, at %#x", s, uint64(task))
	}
	banner, err := base64.StdEncoding.DecodeString(f.Symbols["linux_banner"].Data)
	if err != nil || !strings.HasPrefix(string(banner), "Linux version ") || !strings.HasSuffix(string(banner), "\n\x00") {
		t.Errorf("banner %q %v", banner, err)
	}
}
