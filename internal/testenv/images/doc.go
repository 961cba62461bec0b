// Package images builds the container images that critest and the tests of this project name, out of the machine's
// own Debian or Ubuntu packages, and pushes them to a registry.
//
// The words used here: a package is a .deb file; a tree is the files of one layer; an image is layers with a
// configuration; a reference is the name under which an image is pulled. Build leaves an OCI image layout directory,
// in which one entry of index.json stands for each reference. Everything is deterministic: the same packages give the
// same digests. Errors name the package, image or URL they are about; none of them is of a special kind.
package images
