package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/image/trust"
	"github.com/outsight-vmi/outsight/kernel/reference"
	"github.com/outsight-vmi/outsight/table"
)

func newProfileVerifyCommand() *cobra.Command {
	var out outputFlags
	c := &cobra.Command{
		Use:   "verify [ID|RELEASE|NAME...]",
		Short: "Verify the signatures of stored kernels and modules again",
		Long: `Verify that stored files are what was added, and by whom they are signed: kernels by a distribution, or an authority of
yours; modules by a key inside a signed kernel of their release. Modules that are verified are counted, in other
formats than the table listed too.

Exit status: 0 all are verified; 1 some are not; 3 some could not be read.`,
		Example: "  outsight profile verify\n  outsight profile verify 6.12.118+deb13-amd64 -o json",
	}
	out.add(c, profileView(nil).Columns())
	c.RunE = func(c *cobra.Command, args []string) error {
		s, err := openStore()
		if err != nil {
			return err
		}
		o, err := out.parse(c.OutOrStdout(), profileView(nil).Columns())
		if err != nil {
			return err
		}
		var entries []*reference.Entry
		for _, word := range args {
			found, err := s.Find(word)
			if err != nil {
				return err
			}
			entries = append(entries, found...)
		}
		return verifyProfiles(c, s, o, entries)
	}
	return c
}

// profile is a row of profile list and profile verify.
type profile struct {
	*reference.Entry
	by      string // who signed it
	why     error  // why nobody did
	modules int    // of a kernel's release
}

// profileView shows entries as the rows of a view, for the encoders.
func profileView(rows iter.Seq[*profile]) table.View {
	return listView(table.Spec{Name: "profile", Doc: "Show the profiles.", Host: true, Key: []string{"kind", "id"}}, profileColumns, rows)
}

// listView shows what a command has found itself as the rows of a view, for the encoders.
func listView[T any](spec table.Spec, columns table.Columns[T], rows iter.Seq[*T]) table.View {
	return table.Of(spec, columns, func(context.Context, *guest.Look, table.Request) iter.Seq2[*T, error] {
		return func(yield func(*T, error) bool) {
			for r := range rows {
				if !yield(r, nil) {
					return
				}
			}
		}
	})
}

// showList writes the rows of a listView.
func showList(c *cobra.Command, o output, v table.View) error {
	var report table.Report
	return o.write(c.OutOrStdout(), v.Columns(), table.Rows(c.Context(), v, nil, table.Request{}, &report))
}

func textOrMissing(s string) table.Value {
	if s == "" {
		return table.Value{}
	}
	return table.TextValue(s)
}

var profileColumns = table.Columns[profile]{
	{
		Name: "kind", Type: table.Text, Doc: "Kind: kernel, module or authority.",
		Get: func(p *profile) table.Value { return table.TextValue(string(p.Kind)) },
	},
	{
		Name: "name", Type: table.Text, Doc: "Name of the module or authority; form of the kernel's file.",
		Get: func(p *profile) table.Value { return table.TextValue(p.Name) },
	},
	{
		Name: "release", Type: table.Text, Doc: "Release of the kernel, as uname -r prints it.",
		Get: func(p *profile) table.Value { return textOrMissing(p.Release) },
	},
	{
		Name: "id", Type: table.Text, Doc: "Build-id, or an authority's fingerprint (SHA-256).",
		Get: func(p *profile) table.Value { return table.TextValue(p.ID) },
	},
	{
		Name: "modules", Type: table.Int, Doc: "Number of modules of this release that are stored.",
		Get: func(p *profile) table.Value {
			if p.Kind != reference.Kernel {
				return table.Value{}
			}
			return table.IntValue(int64(p.modules))
		},
	},
	{
		Name: "signed_by", Type: table.Text, Doc: "Who vouches for it by a signature; missing if nobody who is known does.",
		Get: func(p *profile) table.Value { return textOrMissing(p.by) },
	},
	{
		Name: "unverified", Type: table.Text, Extra: true, Doc: "Why nobody vouches for it.",
		Get: func(p *profile) table.Value {
			if p.why == nil {
				return table.Value{}
			}
			return table.TextValue(p.why.Error())
		},
	},
	{
		Name: "size", Type: table.Size, Extra: true, Doc: "Size in bytes, unpacked.",
		Get: func(p *profile) table.Value { return table.SizeValue(uint64(p.Size)) },
	},
	{
		Name: "sha256", Type: table.Text, Extra: true, Doc: "SHA-256 of what is stored, unpacked.",
		Get: func(p *profile) table.Value { return table.TextValue(p.SHA256) },
	},
	{
		Name: "from", Type: table.Text, Extra: true, Doc: "File that it was taken from, and where in it.",
		Get: func(p *profile) table.Value { return table.TextValue(p.From) },
	},
	{
		Name: "added", Type: table.Time, Extra: true, Doc: "When it was added.",
		Get: func(p *profile) table.Value { return table.TimeValue(p.Added) },
	},
}

// showProfiles writes rows.
func showProfiles(c *cobra.Command, o output, all []*profile) error {
	return showList(c, o, profileView(slices.Values(all)))
}

// verifyProfiles verifies entries and shows what came out.
func verifyProfiles(c *cobra.Command, s *reference.Store, o output, entries []*reference.Entry) error {
	var rows []*profile
	verified := map[string]int{} // modules, by release
	failed, unread := 0, 0
	for v, err := range s.Verify(c.Context(), entries...) {
		if err := c.Context().Err(); err != nil {
			return err
		}
		if err != nil {
			unread++
			fmt.Fprintln(c.ErrOrStderr(), "outsight: "+sentence(err.Error()))
			continue
		}
		if v.Err != nil {
			failed++
		} else if v.Kind == reference.Module {
			if verified[v.Release]++; o.format == table.Table {
				continue // thousands of lines that say the same
			}
		}
		rows = append(rows, &profile{Entry: v.Entry, by: v.By, why: v.Err})
	}
	for _, p := range rows {
		p.modules = verified[p.Release]
	}
	if len(rows) > 0 {
		if err := showProfiles(c, o, rows); err != nil {
			return err
		}
	}
	for _, release := range slices.Sorted(maps.Keys(verified)) {
		fmt.Fprintln(c.ErrOrStderr(), sentence(fmt.Sprintf("outsight: %s of %s verified by a key in its signed kernel", counted(verified[release], "module"), release)))
	}
	switch {
	case failed > 0:
		fmt.Fprintf(c.ErrOrStderr(), "outsight: %s not verified; --columns +unverified shows why\n", counted(failed, "file"))
		return errFound
	case unread > 0:
		return errIncomplete{}
	}
	return nil
}

func newProfileListCommand() *cobra.Command {
	var out outputFlags
	var modules, builtIn bool
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the kernels and authorities, or also the modules",
		Long:    "List what is stored: kernels, and the authorities that were added; with --modules also each module, with\n--built-in also the distributions whose signatures are believed without having been added.",
		Example: "  outsight profile list\n  outsight profile list --modules -o json\n  outsight profile list --built-in",
		Args:    noTarget,
	}
	out.add(c, profileView(nil).Columns())
	c.Flags().BoolVar(&modules, "modules", false, "list each module, too")
	c.Flags().BoolVar(&builtIn, "built-in", false, "list the authorities that are built in, too")
	c.RunE = func(c *cobra.Command, _ []string) error {
		s, err := openStore()
		if err != nil {
			return err
		}
		o, err := out.parse(c.OutOrStdout(), profileView(nil).Columns())
		if err != nil {
			return err
		}
		entries, failed := s.List()
		rows := profiles(s, entries)
		if !modules {
			rows = slices.DeleteFunc(rows, func(p *profile) bool { return p.Kind == reference.Module })
		}
		if builtIn {
			rows = append(rows, builtInAuthorities()...)
		}
		if len(rows) == 0 && o.format == table.Table {
			fmt.Fprintln(c.ErrOrStderr(), "outsight: no profiles in "+sentence(s.Dir())+`; "outsight profile add FILE" adds one`)
			return failed
		}
		return errors.Join(showProfiles(c, o, rows), failed)
	}
	return c
}

// profiles are entries as rows.
func profiles(s *reference.Store, entries []*reference.Entry) []*profile {
	modules := map[string]int{}
	for _, e := range entries {
		if e.Kind == reference.Module {
			modules[e.Release]++
		}
	}
	rows := make([]*profile, 0, len(entries))
	for _, e := range entries {
		p := &profile{Entry: e}
		if e.Kind == reference.Kernel {
			p.modules = modules[e.Release]
			p.by, p.why = s.SignedBy(e)
		}
		rows = append(rows, p)
	}
	return rows
}

func builtInAuthorities() (rows []*profile) {
	for _, a := range trust.Authorities() {
		e := reference.DescribeAuthority(a.Name, a.Certificate)
		e.From = "built in"
		rows = append(rows, &profile{Entry: e})
	}
	return rows
}

func newProfileShowCommand() *cobra.Command {
	var out outputFlags
	c := &cobra.Command{
		Use:     "show ID|RELEASE|NAME",
		Short:   "Show all that is known of a stored kernel, module or authority",
		Long:    "Show all that is known of what an ID names (its beginning is enough), of a kernel release, or of what has a name.",
		Example: "  outsight profile show 8692251ac73e\n  outsight profile show loop",
		Args:    arguments(1, 1, "an ID, a RELEASE or a NAME"),
	}
	out.add(c, profileView(nil).Columns())
	c.RunE = func(c *cobra.Command, args []string) error {
		s, err := openStore()
		if err != nil {
			return err
		}
		if out.columns == "" {
			out.columns = "all"
		}
		o, err := out.parse(c.OutOrStdout(), profileView(nil).Columns())
		if err != nil {
			return err
		}
		found, err := s.Find(args[0])
		if err != nil {
			return err
		}
		if o.format == table.Table && slices.ContainsFunc(found, func(e *reference.Entry) bool { return e.Kind == reference.Kernel }) {
			found = slices.DeleteFunc(found, func(e *reference.Entry) bool { return e.Kind == reference.Module })
		}
		for i, p := range shown(c.Context(), s, found) {
			if i > 0 && o.format == table.Table {
				fmt.Fprintln(c.OutOrStdout())
			}
			o.options.Single = true
			if err := showProfiles(c, o, []*profile{p}); err != nil {
				return err
			}
		}
		return nil
	}
	return c
}

// shown are entries with their signatures, and kernels with the number of their modules.
func shown(ctx context.Context, s *reference.Store, found []*reference.Entry) []*profile {
	all, _ := s.List(reference.Module) // those that can be read
	rows := profiles(s, found)
	for _, p := range rows {
		switch p.Kind {
		case reference.Kernel:
			p.modules = 0
			for _, e := range all {
				if e.Release == p.Release {
					p.modules++
				}
			}
		case reference.Module:
			for v, err := range s.Verify(ctx, p.Entry) {
				p.by, p.why = v.By, errors.Join(v.Err, err)
			}
		}
	}
	return rows
}
