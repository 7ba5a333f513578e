// Package views is the views of outsight: one file each, written once and known to
// everything that shows data through the registry of package table. Importing it
// registers them.
//
// A view turns the objects of package linux into rows. It holds no knowledge of the
// kernel's structures: that is package linux's.
package views
