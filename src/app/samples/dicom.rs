//! A PACS's folder: studies of a few series of small images, and the index that its database would export.

use std::fs;
use std::io;
use std::path::Path;

use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, Tag, VR};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

use super::{Seeded, before, born, name};
use crate::domain::Timestamp;

const STUDIES: u64 = 6;
const EDGE: u16 = 32;
/// A prefix for ids that nobody else has given out: an UUID's, after ISO 9834-8.
const ROOT: &str = "2.25.1795000000";
const EXPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";
const CT_IMAGE: &str = "1.2.840.10008.5.1.4.1.1.2";

pub(super) fn write(root: &Path, mut random: Seeded, newest: Timestamp) -> io::Result<()> {
    let mut index = String::from("series_instance_uid,modality,instances\n");
    let base = format!("{ROOT}.{}", random.below(1 << 31));
    for study in 0..STUDIES {
        // the last one was made just now
        let at = before(newest, (STUDIES - 1 - study) * 86_400);
        let (first, last) = name(&mut random);
        let patient = [
            (Tag(0x0010, 0x0010), VR::PN, format!("{last}^{first}")),
            (Tag(0x0010, 0x0020), VR::LO, (100_000 + study).to_string()),
            (Tag(0x0010, 0x0030), VR::DA, born(&mut random, "")),
            (Tag(0x0010, 0x0040), VR::CS, "O".to_owned()),
        ];
        for series in 0..2 + random.below(2) {
            let series_id = format!("{base}.{study}.{series}");
            let images = 3 + random.below(3);
            index.push_str(&format!("{series_id},CT,{images}\n"));
            let folder = root.join(format!("DICOM/ST{study:02}/SE{series:02}"));
            fs::create_dir_all(&folder)?;
            for image in 0..images {
                let text = |tag, vr, value: String| DataElement::new(tag, vr, value);
                let number = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
                let (date, time) = (at.0.strftime("%Y%m%d").to_string(), at.0.strftime("%H%M%S").to_string());
                let pixels: Vec<u8> = (0..usize::from(EDGE) * usize::from(EDGE)).map(|_| random.below(256) as u8).collect();
                let mut elements = vec![
                    text(Tag(0x0008, 0x0012), VR::DA, date.clone()),
                    text(Tag(0x0008, 0x0013), VR::TM, time.clone()),
                    text(Tag(0x0008, 0x0016), VR::UI, CT_IMAGE.to_owned()),
                    text(Tag(0x0008, 0x0018), VR::UI, format!("{series_id}.{image}")),
                    text(Tag(0x0008, 0x0020), VR::DA, date),
                    text(Tag(0x0008, 0x0030), VR::TM, time),
                    text(Tag(0x0008, 0x0050), VR::SH, format!("ACC{study:05}")),
                    text(Tag(0x0008, 0x0060), VR::CS, "CT".to_owned()),
                    text(Tag(0x0008, 0x0201), VR::SH, "+0000".to_owned()),
                    text(Tag(0x0020, 0x000d), VR::UI, format!("{base}.{study}")),
                    text(Tag(0x0020, 0x000e), VR::UI, series_id.clone()),
                    text(Tag(0x0020, 0x0010), VR::SH, study.to_string()),
                    text(Tag(0x0020, 0x0011), VR::IS, (series + 1).to_string()),
                    text(Tag(0x0020, 0x0013), VR::IS, (image + 1).to_string()),
                    number(Tag(0x0028, 0x0002), 1),
                    text(Tag(0x0028, 0x0004), VR::CS, "MONOCHROME2".to_owned()),
                    number(Tag(0x0028, 0x0010), EDGE),
                    number(Tag(0x0028, 0x0011), EDGE),
                    number(Tag(0x0028, 0x0100), 8),
                    number(Tag(0x0028, 0x0101), 8),
                    number(Tag(0x0028, 0x0102), 7),
                    number(Tag(0x0028, 0x0103), 0),
                    DataElement::new(Tag(0x7fe0, 0x0010), VR::OB, PrimitiveValue::from(pixels)),
                ];
                elements.extend(patient.iter().map(|(tag, vr, value)| text(*tag, *vr, value.clone())));
                let meta = FileMetaTableBuilder::new().transfer_syntax(EXPLICIT_LITTLE_ENDIAN);
                let object = InMemDicomObject::from_element_iter(elements).with_meta(meta).map_err(io::Error::other)?;
                let mut file = Vec::new();
                object.write_all(&mut file).map_err(io::Error::other)?;
                fs::write(folder.join(format!("IM{image:04}")), file)?;
            }
        }
    }
    fs::write(root.join("index.csv"), index)
}
