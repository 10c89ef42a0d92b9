// embed FOLDER < IDS: embed.c in Go, through cgo.
//
// What C reads by a pointer within a struct stands in C's memory, as cgo asks for.
package main

/*
#include <stdlib.h>
#include "modernbert.h"
*/
import "C"

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"
)

func check(status C.int) {
	if status != 0 {
		fmt.Fprintln(os.Stderr, "embed:", C.GoString(C.modernbert_last_error()))
		os.Exit(1)
	}
}

// The numbers in memory of C's, to be freed.
func inC(numbers []int64) *C.int64_t {
	room := C.malloc(C.size_t(8 * (len(numbers) + 1)))
	copy(unsafe.Slice((*int64)(room), len(numbers)), numbers)
	return (*C.int64_t)(room)
}

// The ids of all texts one after the other, and where each begins.
func read() (ids, cuSeqlens []int64) {
	cuSeqlens = []int64{0}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<30)
	for lines.Scan() {
		for _, word := range strings.Fields(lines.Text()) {
			id, err := strconv.ParseInt(word, 10, 64)
			if err != nil {
				fmt.Fprintln(os.Stderr, "embed:", err)
				os.Exit(2)
			}
			ids = append(ids, id)
		}
		cuSeqlens = append(cuSeqlens, int64(len(ids)))
	}
	return
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: embed FOLDER < IDS")
		os.Exit(2)
	}
	folder := C.CString(os.Args[1])
	defer C.free(unsafe.Pointer(folder))
	var model *C.modernbert_model
	check(C.modernbert_open(folder, nil, &model))
	defer C.modernbert_close(model)
	var facts C.modernbert_facts
	facts.struct_size = C.sizeof_modernbert_facts
	check(C.modernbert_model_facts(model, &facts))

	ids, cuSeqlens := read()
	var input C.modernbert_input
	input.struct_size = C.sizeof_modernbert_input
	input.sequences = C.int64_t(len(cuSeqlens) - 1)
	input.ids, input.cu_seqlens = inC(ids), inC(cuSeqlens)
	defer C.free(unsafe.Pointer(input.ids))
	defer C.free(unsafe.Pointer(input.cu_seqlens))
	var unit C.modernbert_embedding
	unit.struct_size, unit.normalize = C.sizeof_modernbert_embedding, 1

	width := int(facts.width)
	vectors := make([]float32, (len(cuSeqlens)-1)*width+1)
	check(C.modernbert_embed(model, &input, &unit, nil, (*C.float)(&vectors[0]), C.size_t(len(vectors)-1)))
	for start := 0; start+1 < len(vectors); start += width {
		var words []string
		for _, x := range vectors[start : start+width] {
			words = append(words, strconv.FormatFloat(float64(x), 'g', -1, 32))
		}
		fmt.Println(strings.Join(words, " "))
	}
}
