//! Ends of sentences: English, abbreviations, and the terminals of other scripts.

use super::*;

/// `|` marks the ends of sentences.
#[track_caller]
fn check(marked: &str) {
    let expected: Vec<&str> = marked.split('|').map(str::trim).collect();
    let text = expected.join(" ");
    assert_eq!(sentences(&text).collect::<Vec<_>>(), expected);
}

/// As [`check`], for scripts without spaces between sentences.
#[track_caller]
fn check_joined(marked: &str) {
    let expected: Vec<&str> = marked.split('|').collect();
    assert_eq!(sentences(&expected.concat()).collect::<Vec<_>>(), expected);
}

#[test]
fn full_stops_end_sentences() {
    check("It rains.|It pours!|Does it?|Yes...|So it is.");
    check("One sentence without a stop");
    check("An ellipsis… goes on.|Then… stops…|Here.");
}

#[test]
fn abbreviations_initials_and_numbers_do_not_end_sentences() {
    check("Mr. Smith met Dr. J. R. R. Jones of St. Paul at 3.14 p.m. on Jan. 5.|They left.");
    check("See Fig. 3 and Vol. 2, No. 7.|He said no.|Then he left.");
    check("The U.S. Army is large.|It is of the U.S.|The rest is not.");
    check("She works at Acme Inc. in Boston, i.e. Massachusetts, e.g. Monday.|He does not.");
    check("World War I.|The next war followed.");
    check("1. The first item.|2. The second.");
    check("Visit example.com. now.|Version 2.0 is out.");
    check("It was in room 3.|October came.|The score was 12.|In August it fell.");
}

#[test]
fn closing_quotes_and_brackets_belong_to_the_sentence() {
    check("\"Stop!\" he said.|\"Why?\"|(She knew.)|[So did I.]|“Good.”|‘Yes.’");
    check("He asked “why?” and left.|(“Then go.”)|End.");
    check("„Das ist gut.“|Er ging.|»Nein!«|Sie blieb.|« Oui. »|Il part.");
}

#[test]
fn german_abbreviations_and_ordinal_numbers_do_not_end_sentences() {
    check("Obst, z. B. Äpfel, u. U. Birnen, d. h. Kernobst, bzw. Beeren.|Am 3. Oktober kam er.|Er blieb.");
    check("Im 19. Jahrhundert (* 3. August 1801; † 5. Mai 1870) lebte er.|Der 1. Vorsitzende sprach am 7. April.");
    check("Das war 44 v. Chr. in Rom.|Es kostete 5 Mio. Euro, s. S. 12.|Das ist viel.");
    check("z.B. Äpfel, o. Ä. Dinge, u. a. Obst.|Ende.");
}

#[test]
fn terminals_of_other_scripts_end_sentences() {
    check_joined("今日は晴れ。|明日は雨？|はい。");
    check_joined("彼は「行くよ。」と言った。|「待て！」、そう言った。|ﾊﾝｶｸ｡|値は１．５です．|終わり。");
    check_joined("他走了！？|“好。”|她说（真的。）|３．１４是近似值。");
    check("Он пришёл.|Она ушла в 1990 г. в г. Москва.|Он вернулся.");
    check("क्या वह आया?|डॉ. वर्मा आए।|यह पहला है ॥|अंत");
    check_joined("ሰላም ነው።|እንዴት ነህ፧|ደህና።");
    check_joined("သူလာ၊ ငါသွား။|ပြီးပြီ။");
    check_joined("គាត់មាន ឆ្កែ ឆ្មា ។ល។|គាត់ទៅ។|ចប់៕");
    check("བོད་ཡིག་སློབ། །|ང་འགྲོ།|ཁྱོད་སྡོད།");
    check("هل جاء؟|نعم، جاء د. أحمد!|ثم ذهب.|انتهى");
    check("یہ پہلا ہے۔|کیا وہ آیا؟!|ہاں۔");
    check("Նա եկավ։|Ո՞ւր գնաց:|Տուն:");
    check("Ήρθε ο κ. Νίκος.|Πού πήγε;|Σπίτι· είναι κοντά.");
    check("สวัสดีครับ ผมชื่อสมชาย");
}

#[test]
fn white_space_belongs_to_no_sentence() {
    assert_eq!(sentences("  A dog.\t\u{a0} A cat.  ").collect::<Vec<_>>(), ["A dog.", "A cat."]);
    assert_eq!(sentences(" \t ").count(), 0);
    assert_eq!(sentences(". . .").count(), 1);
}

proptest::proptest! {
    #[test]
    fn only_white_space_is_lost(text in "([a-zA-Z0-9 .!?\"'();:…。é）」、।་།॥؟κք．．]|Mr\\. |។ល។|3\\. Oktober){0,60}") {
        let joined: String = sentences(&text).flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
        let whole: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        proptest::prop_assert_eq!(joined, whole);
    }
}
