// embed_text FOLDER < TEXTS: embed_text.c in Rust, without a crate.
//
// Structs and functions of modernbert.h and modernbert_text.h as far as they are used, in their order; fields that
// are left zero mean the default.
use std::ffi::{CStr, CString};
use std::io::BufRead;
use std::os::raw::{c_char, c_int, c_void};
use std::ptr::{null, null_mut};

#[repr(C)]
struct Facts {
    struct_size: usize,
    sizes: [i64; 6], // vocab, hidden, inter, heads, layers, types
    tier: *const c_char,
    dtype: *const c_char,
    threads: c_int,
    packed_bytes: u64,
    modules: i64,
    width: i64,
    scores: c_int,
    labels: i64,
    pack: *const c_char,
    certificate: c_int,
}

#[repr(C)]
struct Text {
    text: *const c_char,
    bytes: usize,
    pair: *const c_char,
    pair_bytes: usize,
}

#[repr(C)]
struct TextOptions {
    struct_size: usize,
    prompt: *const c_char,
    prompt_bytes: usize,
    prompt_name: *const c_char,
    role: c_int,
    max_length: i64,
    truncation: c_int,
    width: i64,
    normalize: c_int,
    function: *const c_char,
}

extern "C" {
    fn modernbert_last_error() -> *const c_char;
    fn modernbert_open_text(folder: *const c_char, options: *const c_void, model: *mut *mut c_void) -> c_int;
    fn modernbert_model_facts(model: *const c_void, facts: *mut Facts) -> c_int;
    fn modernbert_embed_texts(
        model: *const c_void, texts: *const Text, count: usize, options: *const TextOptions, run: *const c_void,
        out: *mut f32, out_count: usize, lost: *mut i64,
    ) -> c_int;
    fn modernbert_close(model: *mut c_void);
}

fn check(status: c_int) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    Err(unsafe { CStr::from_ptr(modernbert_last_error()) }.to_string_lossy().into_owned())
}

struct Model {
    handle: *mut c_void,
    width: usize,
}

impl Model {
    fn open(folder: &str) -> Result<Model, String> {
        let folder = CString::new(folder).map_err(|e| e.to_string())?;
        let mut model = Model { handle: null_mut(), width: 0 };
        check(unsafe { modernbert_open_text(folder.as_ptr(), null(), &mut model.handle) })?;
        let mut facts: Facts = unsafe { std::mem::zeroed() };
        facts.struct_size = std::mem::size_of::<Facts>();
        check(unsafe { modernbert_model_facts(model.handle, &mut facts) })?;
        model.width = facts.width as usize;
        Ok(model)
    }

    /// Vectors of length 1, one after the other, and the tokens that were cut off each text.
    fn embed(&self, texts: &[String]) -> Result<(Vec<f32>, Vec<i64>), String> {
        let given: Vec<Text> = texts
            .iter()
            .map(|t| Text { text: t.as_ptr() as *const c_char, bytes: t.len(), pair: null(), pair_bytes: 0 })
            .collect();
        let mut unit: TextOptions = unsafe { std::mem::zeroed() };
        unit.struct_size = std::mem::size_of::<TextOptions>();
        unit.normalize = 1;
        let (mut vectors, mut lost) = (vec![0f32; texts.len() * self.width], vec![0i64; texts.len()]);
        check(unsafe {
            modernbert_embed_texts(
                self.handle, given.as_ptr(), given.len(), &unit, null(), vectors.as_mut_ptr(), vectors.len(),
                lost.as_mut_ptr(),
            )
        })?;
        Ok((vectors, lost))
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        unsafe { modernbert_close(self.handle) }
    }
}

fn run() -> Result<(), String> {
    let folder = std::env::args().nth(1).ok_or("usage: embed_text FOLDER < TEXTS")?;
    let model = Model::open(&folder)?;
    let texts: Result<Vec<String>, _> = std::io::stdin().lock().lines().collect();
    let texts = texts.map_err(|e| e.to_string())?;
    let (vectors, lost) = model.embed(&texts)?;
    for (i, tokens) in lost.iter().enumerate().filter(|(_, tokens)| **tokens > 0) {
        eprintln!("line {}: {} tokens were cut off", i + 1, tokens);
    }
    for vector in vectors.chunks(model.width) {
        let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
        println!("{}", numbers.join(" "));
    }
    Ok(())
}

fn main() {
    if let Err(message) = run() {
        eprintln!("embed_text: {message}");
        std::process::exit(1);
    }
}
